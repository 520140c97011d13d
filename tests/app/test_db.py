"""Databases that somebody holds up: everybody else goes on, or is told so in time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from app import claims, db, jobs
from app.db import Database
from app.reaper import Reaper
from app.sweeper import sweep
from tests.app.conftest import made_of
from tests.app.world import HOLDER, Person, World, chain, spec_body
from worker.persist import is_passing

CLIENTS = 8


@pytest.fixture
def postgres_world(postgres_database: Database, tmp_path: Path) -> World:
    return made_of(postgres_database, tmp_path)


@pytest.fixture
def vanished(postgres_database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """The same database as a machine knows it that will not be heard of again."""
    monkeypatch.setattr(db, "VANISHED_S", 3)
    with closing(Database(postgres_database.engine.url.render_as_string(hide_password=False))) as database:
        yield database


@pytest.mark.postgres
def test_who_vanishes_in_the_middle_of_a_claim_does_not_stop_the_others(
    postgres_world: World, vanished: Database
) -> None:
    postgres_world.submit(postgres_world.person("owner"), chain("a"))
    transaction = vanished.write()
    assert claims.claim(transaction.__enter__(), HOLDER) is not None
    assert postgres_world.claim() is not None  # waits until the server has ended the other transaction
    with pytest.raises(DBAPIError) as lost:
        transaction.__exit__(None, None, None)
    assert is_passing(lost.value)


@pytest.mark.postgres
def test_who_froze_while_it_held_a_job_does_not_stop_the_reaper(postgres_world: World) -> None:
    owner, reaper = postgres_world.person("owner"), Reaper(0.0)
    held, other = (postgres_world.submit(owner, chain(name)) for name in "ab")
    for _ in range(2):
        assert postgres_world.claim() is not None
    with postgres_world.services.database.write() as session:
        jobs.lock(session, held.id)
        assert [lease.job_id for lease in sweep(postgres_world.services, reaper)] == [other.id]
    assert [lease.job_id for lease in sweep(postgres_world.services, reaper)] == [held.id]


def test_who_waits_for_a_database_that_is_locked_is_told_in_time_however_many_wait(
    client: TestClient, owner: Person, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.submit(owner, chain("a"))
    monkeypatch.setattr(db, "BUSY_TIMEOUT_MS", 200)

    def ask(_: int) -> tuple[int, str | None]:
        answer = client.post(f"/api/v1/jobs/{job.id}/pause")
        return answer.status_code, answer.headers.get("Retry-After")

    with ThreadPoolExecutor(CLIENTS) as pool:
        with world.services.database.write():
            assert set(pool.map(ask, range(CLIENTS), timeout=100)) == {(503, "2")}
            assert client.get(f"/api/v1/jobs/{job.id}").status_code == 200, "who only reads waits for nobody"
        assert ask(0) == (200, None)


def test_many_who_wait_to_write_leave_room_for_those_who_read(client: TestClient, owner: Person, world: World) -> None:
    job = world.submit(owner, chain("a"))

    def ask(_: int) -> int:
        return client.post(f"/api/v1/jobs/{job.id}/pause").status_code

    with ThreadPoolExecutor(2 * db.MOST_WAITING) as pool, world.services.database.write():
        asked = [pool.submit(ask, number) for number in range(2 * db.MOST_WAITING)]
        first = next(as_completed(asked)).result()
        assert first == 503 and client.get(f"/api/v1/jobs/{job.id}").status_code == 200
        assert sum(not one.done() for one in asked) > db.MOST_WAITING / 2, "those still wait"


def test_a_full_disk_is_called_that(client: TestClient, owner: Person, world: World) -> None:
    database = world.services.database.engine
    event.listen(database, "checkout", lambda connection, *_: connection.execute("PRAGMA max_page_count = 1"))
    answers = (client.post("/api/v1/jobs", json={"spec": spec_body()}) for _ in range(100))
    answer = next(one for one in answers if one.status_code != 201)  # some fit into pages that are there
    assert answer.status_code == 503 and answer.headers["Retry-After"] == "60"
    assert "disk" in answer.json()["detail"] and "fadrm storage" in answer.json()["hint"]
    assert client.get("/api/v1/jobs").status_code == 200
