"""A whole server for the tests of pages: real database, real store, and, when asked for, a real port."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqlalchemy import event

import app.models as _rows  # noqa: F401 - the tables
from app import auth, controls, jobs, planning, sent, sweeps, uploads
from app.cells import Axis
from app.db import Base
from app.main import Server, create_app, server
from app.middleware import COOKIE
from app.models import Job, User
from app.services import Services, build
from app.settings import Settings
from engine.errors import DatasetInvalid, DiskFull, EngineError, ErrorReport, OutOfMemory
from engine.methods import Fadrm
from engine.plan import StepKind
from engine.presets import DEMO
from engine.spec import Evaluation, JobSpec, Labels, Teacher
from tests.pages.play import Player

SMALL = DEMO.model_copy(
    update={
        "method": Fadrm(budgets=(20, 20)),
        "teachers": (Teacher(network="convnet3_w32", epochs=6, optimizer="adamw", lr=0.01),),
        "labels": Labels(epochs=20),
        "evaluation": Evaluation(
            students=("convnet3_w32",), runs=2, labels=("soft",), baselines=("rded", "random"), every=5
        ),
    }
)

OTHER_FAILURES: dict[str, EngineError | ErrorReport] = {
    "out of GPU memory": OutOfMemory(
        "cuda:0 has too little memory: 2.5 GB were asked for, 0.7 GB were free.",
        requested_bytes=2_500_000_000,
        free_bytes=700_000_000,
    ),
    "broken images": DatasetInvalid(
        "3 of 5,000 images cannot be read: cat/1.png, cat/7.png, dog/2.png.", hint="Mend or remove these files."
    ),
    "full disk": DiskFull("No space is left for the checkpoint."),
    "lost worker": ErrorReport(
        code="worker_lost",
        message="The worker gpu-box:cuda:0 was not heard of while it worked on: Recover images.",
        hint="Look at the worker's log and at the machine's memory.",
    ),
    "crashed engine": ErrorReport(
        code="engine_crashed",
        message="The engine ended with signal 11.",
        hint="Its last words are below.",
        details={"exit_code": -11, "log": ["Fatal Python error: Segmentation fault", "Current thread 0x00007f"]},
    ),
}


class Site:
    """An administrator, their jobs, and somebody who plays the worker."""

    def __init__(self, home: Path) -> None:
        self.services: Services = build(Settings(home=home, data_roots=(home / "data",)))
        event.listen(self.services.database.engine, "connect", _in_no_fear_of_power_cuts)
        Base.metadata.create_all(self.services.database.engine)
        with self.services.database.write() as session:
            self.user: User = auth.bootstrap(session)
        self.player = Player(self.services)
        self.app: FastAPI = create_app(self.services, background=False)

    def close(self) -> None:
        self.services.close()

    def cookie(self) -> str:
        """A session, as a browser holds it after logging in."""
        with self.services.database.write() as session:
            return auth.new_token(session, self.user, "session", "tests", timedelta(days=1))[1]

    def demote(self) -> None:
        """From now on the only user may look and not change."""
        with self.services.database.write() as session:
            session.get_one(User, self.user.id).role = "viewer"

    def login_path(self) -> str:
        """Where a one-time link leads."""
        with self.services.database.write() as session:
            return f"/login?token={auth.login_link(session, self.user)}"

    def submit(self, name: str = "Digits", spec: JobSpec = SMALL, key: str | None = None) -> str:
        """A job, waiting. Its id."""
        return planning.submit(self.services, self.user, spec, name, key)[0].id

    def upload(self, data: bytes) -> str:
        """A data set of this archive. Its id."""
        folder = sent.new_folder(self.services.store.uploads)
        (folder / sent.SENT).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return uploads.keep(self.services, self.user, folder, sha256, "Insects")[0].id

    def populate(self, spec: JobSpec = SMALL) -> dict[str, str]:
        """Jobs in every interesting state: name -> address of the page."""
        done = self.submit("Digits, ten images a class", spec)
        self.player.play()
        failed = self.submit("Learning rate too high", spec.model_copy(update={"seed": 1}))
        self.player.play(until=StepKind.RECOVER, batches=5)
        report = ErrorReport(
            code="nan_loss", message="The loss is not finite at step 9.", hint="Lower the learning rate."
        )
        self.player.fail(report)
        self.cancel(self.submit("Not wanted after all", spec.model_copy(update={"seed": 2})))
        long = "A name that is long, with noplacewhereitcouldbebrokenacrossthelinesofatelephone"
        running = self.submit(long, spec.model_copy(update={"seed": 3}))
        self.player.play(until=StepKind.RECOVER, batches=20)
        self.submit("One image a class", spec.model_copy(update={"ipc": 1}))
        return {"done": f"/jobs/{done}", "failed": f"/jobs/{failed}", "running": f"/jobs/{running}"}

    def failures(self) -> dict[str, str]:
        """A failed job of every other kind: name -> address of the page."""
        found = {}
        for seed, (name, error) in enumerate(OTHER_FAILURES.items(), start=100):
            job_id = self.submit(name[0].upper() + name[1:], SMALL.model_copy(update={"seed": seed}))
            self.player.play(until=StepKind.RECOVER, batches=2)
            self.player.fail(error.report if isinstance(error, EngineError) else error)
            found[name] = f"/jobs/{job_id}"
        return found

    def sweep(self) -> str:
        """Address of a sweep of two jobs that wait."""
        axis = Axis(name="alpha", path="/method/alpha", values=[0.2, 0.8])
        made, _ = sweeps.submit(self.services, self.user, sweeps.SweepIn(preset="demo", axes=[axis]), None)
        return f"/sweeps/{made.id}"

    def job(self, job_id: str) -> Job:
        with self.services.database.read() as session:
            return jobs.get(session, self.user, job_id)

    def cancel(self, job_id: str) -> None:
        with self.services.database.write() as session:
            controls.cancel(session, jobs.get(session, self.user, job_id), self.user)


def _in_no_fear_of_power_cuts(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")


class Port:
    """The site on a port of this machine; it can go down and come back there."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.number: int = free.getsockname()[1]
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.number}"

    @property
    def cookie(self) -> dict[str, str]:
        """For a browser's context."""
        return {"name": COOKIE, "value": self.site.cookie(), "url": self.url}

    def up(self) -> None:
        app = create_app(self.site.services, background=False)
        self._server = server(app, host="127.0.0.1", port=self.number)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)

    def down(self) -> None:
        assert self._server is not None and self._thread is not None
        self._server.should_exit = True
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the server did not stop"
