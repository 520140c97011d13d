"""What the store has already is done without a worker: by the server, and only where the bytes are right."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from app import controls, jobs
from app.cached import Waiting, end_cached
from app.main import create_app
from app.models import Attempt, StoredStep
from app.sweeper import Stopped
from tests.app.test_authz import SWEEP
from tests.app.test_room import FULL, with_settings
from tests.app.world import Person, World, chain, spec_body

BODY = {"spec": spec_body()}


def test_a_job_that_the_store_has_whole_ends_without_a_worker(any_world: World) -> None:
    owner = any_world.person("owner")
    first = any_world.submit(owner, chain("a", 3))
    assert end_cached(any_world.services) == 0, "the store has nothing yet"
    any_world.work()
    second = any_world.submit(owner, chain("a", 3))
    assert end_cached(any_world.services) == 3
    assert any_world.job(second.id).state == "succeeded"
    for made, found in zip(any_world.steps(first.id), any_world.steps(second.id), strict=True):
        assert (found.state, found.cached) == ("succeeded", True)
        assert (found.result, found.seconds) == (made.result, 1.5)
    with any_world.services.database.read() as session:
        told = [event.data for event in jobs.events_after(session, [second.id], {}) if event.kind == "job"]
        outcomes = [row.outcome for row in session.query(Attempt) if row.worker == "server"]
    assert [data["state"] for data in told] == ["queued", "running", "succeeded"] and outcomes == ["cached"] * 3


def test_what_the_store_lacks_waits_for_a_worker_and_what_follows_goes_on(any_world: World) -> None:
    owner = any_world.person("owner")
    any_world.submit(owner, chain("a", 3))
    any_world.work()
    any_world.services.store.remove("a-1")
    job = any_world.submit(owner, chain("a", 3))
    assert end_cached(any_world.services) == 1
    assert [step.state for step in any_world.steps(job.id)] == ["succeeded", "queued", "queued"]
    lease = any_world.claim()
    assert lease is not None
    any_world.perform(lease)
    assert end_cached(any_world.services) == 1 and any_world.job(job.id).state == "succeeded"


def test_damaged_bytes_are_left_to_a_worker(world: World) -> None:
    owner = world.person("owner")
    world.submit(owner, chain("a"))
    world.work()
    job = world.submit(owner, chain("a"))
    path = world.services.store.step("a-1") / "distilled set.zip"
    path.write_bytes(path.read_bytes()[::-1])
    assert end_cached(world.services) == 1
    assert [step.state for step in world.steps(job.id)] == ["succeeded", "queued"]
    (world.services.store.step("a-1") / "manifest.json").write_text("no JSON")
    assert end_cached(world.services) == 0


def test_damaged_bytes_and_those_of_who_has_enough_at_work_are_not_read_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, other = world.person("owner"), world.person("other")
    world.submit(owner, chain("a"))
    world.work()
    world.submit(owner, chain("a"))
    path = world.services.store.step("a-1") / "distilled set.zip"
    path.write_bytes(path.read_bytes()[::-1])
    read, damaged, look = list[str](), set[Waiting](), world.services.store.damaged

    def looked_at(key: str, **more: Any) -> list[str]:
        read.append(key)
        return look(key, **more)

    monkeypatch.setattr(world.services.store, "damaged", looked_at)
    assert [end_cached(world.services, damaged=damaged) for _ in range(3)] == [1, 0, 0]
    assert read == ["a-0", "a-1"] and [step.key for step in damaged] == ["a-1"]
    world.submit(other, chain("a"))
    none = with_settings(world, max_running_per_user=0)
    assert end_cached(none, damaged=damaged) == 0 and read == ["a-0", "a-1"]


def test_a_job_that_is_paused_or_cancelled_is_left_alone(any_world: World) -> None:
    owner = any_world.person("owner")
    any_world.submit(owner, chain("a"))
    any_world.work()
    paused, cancelled = any_world.submit(owner, chain("a")), any_world.submit(owner, chain("a"))
    with any_world.services.database.write() as session:
        controls.pause(session, jobs.get(session, owner.user, paused.id), owner.user)
        controls.cancel(session, jobs.get(session, owner.user, cancelled.id), owner.user)
    assert end_cached(any_world.services) == 0
    assert (any_world.job(paused.id).state, any_world.job(cancelled.id).state) == ("paused", "cancelled")


def test_a_server_that_ends_reads_no_further(world: World) -> None:
    owner = world.person("owner")
    world.submit(owner, chain("a"))
    world.work()
    job = world.submit(owner, chain("a"))

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        end_cached(world.services, stop)
    assert world.job(job.id).state == "queued"


def test_only_what_the_rows_know_is_looked_for(world: World) -> None:
    owner = world.person("owner")
    world.submit(owner, chain("a"))
    world.work()
    world.submit(owner, chain("a"))
    with world.services.database.write() as session:
        session.execute(delete(StoredStep))
    assert end_cached(world.services) == 0


def test_without_workers_and_without_room_a_cached_job_is_taken_and_ends(world: World, owner: Person) -> None:
    services = with_settings(world, reserve_bytes=FULL)
    headers = owner.headers
    with TestClient(create_app(world.services, background=False), headers=headers) as client:
        client.post("/api/v1/jobs", json=BODY).raise_for_status()
        client.post("/api/v1/sweeps", json=SWEEP).raise_for_status()
        world.work()
    with TestClient(create_app(services), headers=headers) as client:
        assert client.post("/api/v1/jobs/plan", json=BODY).json()["starts_in_minutes"] == 0
        assert client.post("/api/v1/jobs/plan", json={"spec": spec_body(seed=99)}).json()["starts_in_minutes"] is None
        job = client.post("/api/v1/jobs", json=BODY).json()
        assert client.post("/api/v1/sweeps", json=SWEEP).status_code == 201
        other = {"spec": spec_body(seed=99)}
        assert client.post("/api/v1/jobs", json=other).status_code == 507, "this one would need room"
        deadline = time.monotonic() + 20
        while (found := client.get(job["urls"]["self"]).json())["state"] != "succeeded":
            assert time.monotonic() < deadline, found["sentence"]
            time.sleep(0.05)
        assert client.get(f"{job['urls']['self']}/downloads").json()
        assert client.get(f"{job['urls']['self']}/results").json()["rows"]
