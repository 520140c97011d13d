"""A full disk begins nothing, and nobody's jobs hold more than they may; both are said beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.main import create_app
from app.models import Job, StoredStep, Worker, utc_now
from app.services import Services
from app.storage import room, stored
from tests.app.test_authz import SWEEP
from tests.app.world import Person, World, chain, spec_body

BODY = {"spec": spec_body()}
FULL = 10**18  # bytes that no disk has


def with_settings(world: World, **changes: Any) -> Services:
    old = world.services
    settings = old.settings.model_copy(update=changes)
    return Services(settings=settings, database=old.database, store=old.store, bell=old.bell)


@pytest.fixture
def full(world: World, owner: Person) -> Iterator[TestClient]:
    """A client of a server whose disk is at its reserve."""
    services = with_settings(world, reserve_bytes=FULL)
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        yield client


def store_step(world: World, key: str, size_bytes: int) -> None:
    with world.services.database.write() as session:
        session.merge(StoredStep(key=key, kind="recover", size_bytes=size_bytes, used_at=utc_now()))


def test_a_disk_at_its_reserve_takes_no_job_and_says_so(full: TestClient, world: World) -> None:
    for path, body in (("/api/v1/jobs", BODY), ("/api/v1/sweeps", SWEEP)):
        answer = full.post(path, json=body)
        assert answer.status_code == 507 and answer.json()["code"] == "no_room"
        assert "kept in reserve" in answer.json()["detail"] and "Storage" in answer.json()["hint"]
    assert world.count(Job) == 0
    check = full.get("/readyz").json()["checks"]["disk"]
    assert not check["ok"] and "kept in reserve" in check["detail"]


def test_the_reserve_is_bytes_or_a_share_of_the_disk(world: World) -> None:
    assert room.refusal(world.services) is None
    assert room.refusal(with_settings(world, reserve_share=0.9999)) is not None
    found = room.disk(with_settings(world, reserve_bytes=5, reserve_share=0.1))
    assert found.reserve_bytes == int(0.1 * found.total_bytes)


def test_a_job_waits_for_room_and_says_so(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json=BODY).json()
    world.worker_online()
    with world.services.database.write() as session:
        session.get_one(Worker, "test:cpu:0").refuses = str(room.disk(with_settings(world, reserve_bytes=FULL)))
    told = client.get(job["urls"]["self"]).json()["sentence"]
    assert told.startswith("Waiting: the store’s disk has ") and told.endswith("kept in reserve.")


def test_what_jobs_hold_is_counted_once_and_without_the_trash(any_world: World) -> None:
    person = any_world.person("owner")
    first, _ = any_world.submit(person, chain("a")), any_world.submit(person, chain("a"))
    any_world.submit(any_world.person("other"), chain("b"))
    for key, size in (("a-0", 5), ("a-1", 7), ("b-0", 100)):
        store_step(any_world, key, size)
    with any_world.services.database.write() as session:
        assert stored.held_bytes(session, person.user.id) == 12
        found = room.room_for(session, any_world.services, person.user, chain("b", 3).steps)
        assert (found.needs_bytes, found.held_bytes, found.limit_bytes) == (20, 112, None)
        session.get_one(Job, first.id).deleted_at = utc_now()
        session.flush()
        assert stored.held_bytes(session, person.user.id) == 12, "the other job has the same steps"


def test_jobs_under_way_count_with_what_they_will_leave(any_world: World) -> None:
    person = any_world.person("owner")
    any_world.submit(person, chain("a", 3))
    store_step(any_world, "a-0", 5)
    with any_world.services.database.read() as session:
        found = room.room_for(session, any_world.services, person.user, chain("a", 3).steps)
    assert (found.needs_bytes, found.held_bytes) == (0, 5 + 2 * 10)


def test_more_than_a_user_may_hold_is_shown_before_and_refused(world: World, owner: Person) -> None:
    services = with_settings(world, max_bytes_per_user=1000)
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        planned = client.post("/api/v1/jobs/plan", json=BODY).json()
        assert planned["room"]["limit_bytes"] == 1000 < planned["room"]["needs_bytes"]
        assert any("they may hold" in warning for warning in planned["warnings"])
        assert any(
            "they may hold" in told for told in client.post("/api/v1/sweeps/plan", json=SWEEP).json()["warnings"]
        )
        for path, body in (("/api/v1/jobs", BODY), ("/api/v1/sweeps", SWEEP)):
            answer = client.post(path, json=body)
            assert answer.status_code == 429 and "your jobs hold" in answer.json()["detail"]
            assert "Delete jobs" in answer.json()["hint"]
    assert world.count(Job) == 0


def test_within_the_limit_a_job_is_taken(world: World, owner: Person) -> None:
    services = with_settings(world, max_bytes_per_user=10**12)
    with TestClient(create_app(services, background=False), headers=owner.headers) as client:
        assert client.post("/api/v1/jobs", json=BODY).status_code == 201
        assert client.post("/api/v1/jobs/plan", json=BODY).json()["room"]["held_bytes"] > 0
