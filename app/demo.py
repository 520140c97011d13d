"""The demo of `fadrm up --demo`: a small job through the public API, shown from start to score card."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from rich.console import Console

from app import local, remote
from app.trouble import ClientError
from app.up import Server


@dataclass(slots=True, kw_only=True)
class Demo:
    """Runs beside the main thread, which keeps the server alive."""

    server: Server
    console: Console
    leave: bool  # stop the server when the job has ended
    succeeded: bool = False

    def begin(self) -> None:
        """Submit and show, in a thread."""
        threading.Thread(target=self._run, name="demo", daemon=True).start()

    def _run(self) -> None:
        try:
            self._show()
        except ClientError as error:
            if not self.server.is_stopping:
                remote.tell(self.console, error)
        finally:
            if self.leave:
                self.server.stop()
            elif not self.server.is_stopping:
                self.console.print("\nServing until Ctrl-C.", highlight=False)

    def _show(self) -> None:
        from app import terminal
        from fadrm import Client
        from fadrm.progress import follow

        settings = self.server.settings
        connection = local.connect(settings, self.server.url)
        with Client(connection.url, connection.token) as client:
            job = client.submit({"preset": "demo"})
            self.console.print(f"  Demo job {job.id}: {job.name}\n", highlight=False, soft_wrap=True)
            ended = follow(client, job.id, self.console)
            package = next((step.key for step in ended.steps if step.kind == "package"), "")
            place = settings.store_root / "steps" / package
            terminal.show_outcome(client, ended, self.console, lambda name: str(place / name))
            self.succeeded = ended.state == "succeeded"
