"""`fadrm up` with the real engine, as users have it: API, Redis, workers, engines, and all at once are killed in recover."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app import machine
from app.db import Database
from app.models import Attempt, Event, Step
from engine.plan import StepKind
from engine.store import Store
from fadrm import Client
from fadrm.connection import read as read_connection
from tests.app.running import Running, living
from tests.worker.real import SETTINGS, SPEC, images_below, tiny_plan

pytestmark = [pytest.mark.chaos, pytest.mark.redis, pytest.mark.timeout(600)]
LONGER = SPEC.model_copy(update={"ipc": 4, "method": SPEC.method.model_copy(update={"budgets": (1000, 1000)})})
log = logging.getLogger(__name__)


class Server(Running):
    """With a look into its database."""

    def __init__(self, home: Path, *words: str) -> None:
        super().__init__(home, *words, **SETTINGS)
        try:
            self.until_serving()
        except AssertionError:
            self.end(signal.SIGKILL)
            raise
        connection = read_connection(home)
        assert connection is not None
        self.client = Client(connection.url, connection.token)
        self.database = Database(f"sqlite:///{home / 'fadrm.db'}")
        self.store = Store(home / "store")

    def attempts(self) -> list[Attempt]:
        with self.database.read() as session:
            return list(session.scalars(select(Attempt).order_by(Attempt.started_at)))

    def engines(self) -> dict[str, int]:
        return {
            f"engine-{row.pid}": row.pid
            for row in self.attempts()
            if row.pid and machine.started(row.pid) == row.pid_started
        }

    def until_recovering(self, *, checkpoints: int) -> None:
        self.until(lambda: self.count("checkpoint") >= checkpoints, 120.0)

    def count(self, kind: str) -> int:
        with self.database.read() as session:
            query = select(Event.seq).join(Step, Step.id == Event.step_id)
            return len(session.execute(query.where(Event.kind == kind, Step.kind == StepKind.RECOVER)).all())

    def leave(self) -> None:
        if self.process.poll() is None:
            self.end(signal.SIGKILL)
        self.client._http.close()
        self.database.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def serve(name: str = "home", *words: str) -> Server:
        servers.append(Server(tmp_path / name, "--port", "8300", *words))
        return servers[-1]

    yield serve
    for server in servers:
        server.leave()


def listen(client: Client, job_id: str) -> tuple[threading.Thread, list[int]]:
    """Somebody who watches all the while, and writes down the number of each event."""
    heard: list[int] = []
    thread = threading.Thread(target=lambda: heard.extend(event.seq for event in client.events(job_id)))
    thread.start()
    return thread, heard


def test_whatever_is_killed_the_job_ends_well_once_with_the_same_bytes(
    serve: Callable[..., Server], record_property: Callable[[str, object], None]
) -> None:
    body = {"spec": LONGER.model_dump(mode="json")}
    calm = serve("calm", "--workers", "2")
    assert calm.client.wait(calm.client.submit(body).id).state == "succeeded"
    calm.end()

    server = serve("stormy", "--workers", "2")
    job = server.client.submit(body)
    thread, heard = listen(server.client, job.id)
    took: dict[str, float] = {}
    for victim in ("engine", "serve-0", "redis-0", "worker.tasks-0"):
        server.until_recovering(checkpoints=server.count("checkpoint") + 2)
        attempts = len(server.attempts())
        pid = next(iter(server.engines().values())) if victim == "engine" else server.pids()[victim]
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        if victim == "serve-0":
            server.client.job(job.id)  # asks again until it is there
        elif victim == "redis-0":
            server.until(lambda pid=pid: server.pids().get("redis-0", pid) != pid)  # type: ignore[misc]
        else:
            server.until(lambda attempts=attempts: len(server.attempts()) > attempts)  # type: ignore[misc]
        took[victim] = round(time.monotonic() - began, 1)
    ended = server.client.wait(job.id)
    thread.join(30)
    log.info("recovery times %s", took)
    record_property("recovery", took)
    assert ended.state == "succeeded"
    assert heard == list(range(1, ended.version + 1))
    assert {row.outcome for row in server.attempts()} <= {"succeeded", "crashed", "lost"}
    assert images_below(server.store, tiny_plan(LONGER)) == images_below(calm.store, tiny_plan(LONGER))
    children = server.pids() | server.engines()
    assert server.end() == 0
    assert living(children) == []


def test_all_is_killed_at_once_and_started_again(
    serve: Callable[..., Server], record_property: Callable[[str, object], None]
) -> None:
    server = serve()
    job = server.client.submit({"spec": LONGER.model_dump(mode="json")})
    server.until_recovering(checkpoints=3)
    children = server.pids() | server.engines()
    attempts = len(server.attempts())
    server.end(signal.SIGKILL)
    server.until_gone(children)
    began = time.monotonic()
    again = serve()
    again.until(lambda: len(again.attempts()) > attempts)
    record_property("recovery", round(time.monotonic() - began, 1))
    log.info("from start to work: %.1f s", time.monotonic() - began)
    assert "took back" in again.told
    ended = again.client.wait(job.id)
    assert ended.state == "succeeded"
    resumed = [event.data["resumed_at"] for event in again.client.events(job.id) if event.kind == "started"]
    assert any(at > 0 for at in resumed)


def test_a_drained_server_gives_its_steps_back_and_goes_on_later(serve: Callable[..., Server]) -> None:
    server = serve()
    job = server.client.submit({"spec": LONGER.model_dump(mode="json")})
    server.until_recovering(checkpoints=2)
    children = server.pids() | server.engines()
    began = time.monotonic()
    assert server.end(signal.SIGTERM) == 0
    log.info("drained in %.1f s", time.monotonic() - began)
    assert living(children) == []
    assert "released" in {row.outcome for row in server.attempts()}
    again = serve()
    assert again.client.wait(job.id).state == "succeeded"
    assert {row.outcome for row in again.attempts()} == {"released", "succeeded"}


def test_the_demo_ends_with_a_score_card_and_a_download(tmp_path: Path) -> None:
    running = Running(tmp_path / "home", "--demo", "--exit", "--port", "8301")
    try:
        code = running.process.wait(500)
    finally:
        running.end(signal.SIGKILL)
    log.info("%s", running.told)
    assert code == 0, running.told
    assert "Distilled images" in running.told and "points" in running.told
    (package,) = (tmp_path / "home" / "store" / "steps").glob("*/*.zip")
    assert str(package) in running.told.replace("\n", "")
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
