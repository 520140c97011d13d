"""One `fadrm up` as a user starts it: what it prints, what processes it has, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app import machine, up

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with up.open_port("127.0.0.1", 0) as probe:
        found: int = probe.getsockname()[1]
        return found


class Running:
    """One `fadrm up` and everything that it printed."""

    def __init__(self, home: Path, *words: str, **environment: str) -> None:
        self.home = home
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FADRM_")}
        command = [sys.executable, "-m", "app.cli", "up", "--home", str(home), *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            self.lines.extend(iter(stream.readline, ""))

    @property
    def told(self) -> str:
        return "".join(self.lines)

    def until(self, condition: Callable[[], object], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.told
            assert self.process.poll() is None or condition(), self.told
            time.sleep(0.05)

    def until_serving(self) -> str:
        """Wait until the login link is printed; returns the server's address."""
        self.until(lambda: "/login?token=" in self.told)
        found = re.search(r"(http://127\.0\.0\.1:\d+)/login", self.told)
        assert found is not None
        return found[1]

    def pids(self) -> dict[str, int]:
        """Name -> pid of the children, by what they run."""
        found: dict[str, int] = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and (words := _command(folder)) and _parent(folder) == self.process.pid:
                kind = next((kind for kind in ("redis", "serve", "worker.tasks") if kind in words), "?")
                found[f"{kind}-{sum(kind in name for name in found)}"] = int(folder.name)
        return found

    def until_gone(self, pids: dict[str, int]) -> None:
        deadline = time.monotonic() + 5
        while living(pids):
            assert time.monotonic() < deadline, living(pids)
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGTERM, timeout_s: float = 20.0) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout_s)
        self._reader.join()
        return code


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def living(pids: dict[str, int]) -> list[str]:
    return [name for name, pid in pids.items() if machine.started(pid) is not None]
