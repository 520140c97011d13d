"""What is deleted is hidden, comes back when it is restored, and in the end leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient

from app import jobs
from app.db import Base
from app.leases import LeaseLost
from app.main import create_app
from app.models import AuditEvent, Job, JobState, Preview, StoredStep, Sweep, Token, User, utc_now
from app.storage import janitor
from engine.events import Progress
from tests.app.test_authz import SWEEP
from tests.app.world import Person, World, chain, files_of, spec_body

BODY = {"spec": spec_body()}


@pytest.fixture
def any_client(any_world: World) -> Iterator[TestClient]:
    """A client of an owner, on both databases."""
    with TestClient(create_app(any_world.services, background=False), follow_redirects=False) as client:
        client.headers.update(any_world.person("owner").headers)
        yield client


def made(client: TestClient, world: World, **changes: object) -> str:
    """A job that has succeeded."""
    job_id: str = client.post("/api/v1/jobs", json={"spec": spec_body(**changes)}).json()["id"]
    world.work()
    return job_id


def rows(world: World) -> dict[str, int]:
    """How many rows there are of what jobs are made of."""
    apart = {User.__tablename__, Token.__tablename__, AuditEvent.__tablename__}
    tables = [mapper.class_ for mapper in Base.registry.mappers if mapper.class_.__tablename__ not in apart]
    return {table.__tablename__: count for table in tables if (count := world.count(table))}


def test_a_deleted_job_is_hidden_and_restored_as_it_was(client: TestClient, world: World) -> None:
    job_id = made(client, world)
    before = client.get(f"/api/v1/jobs/{job_id}").json()
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    for path in ("", "/artifacts", "/events", "/results", "/log", "/spec"):
        assert client.get(f"/api/v1/jobs/{job_id}{path}").status_code == 404, path
    assert client.get(f"/jobs/{job_id}").status_code == 404
    assert client.get("/api/v1/jobs").json()["data"] == []
    [shown] = client.get("/api/v1/trash").json()
    assert (shown["kind"], shown["id"], shown["owner"], shown["deleted_by"]) == ("job", job_id, "owner", "owner")
    assert shown["removed_at"] > shown["deleted_at"]
    assert client.post(f"/api/v1/jobs/{job_id}/restore").json() == before
    assert client.get("/api/v1/trash").json() == []
    [file, *_] = client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["data"]
    assert client.get(file["url"]).status_code == 200


def test_only_what_has_ended_and_is_not_pinned_is_deleted(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json=BODY).json()
    assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 409
    world.work()
    assert client.patch(f"/api/v1/jobs/{job['id']}", json={"pinned": True}).json()["pinned_by"] == "owner"
    assert "pinned by owner" in client.delete(f"/api/v1/jobs/{job['id']}").json()["detail"]
    assert client.patch(f"/api/v1/jobs/{job['id']}", json={"pinned": False}).json()["pinned_by"] is None
    assert client.delete(f"/api/v1/jobs/{job['id']}").status_code == 204


def test_who_deletes_what(client: TestClient, world: World) -> None:
    job_id = made(client, world)
    url = f"/api/v1/jobs/{job_id}"
    client.patch(url, json={"visibility": "all"})
    for name, role, status in (("other", "member", 403), ("viewer", "viewer", 403), ("admin", "admin", 204)):
        assert client.delete(url, headers=world.person(name, role).headers).status_code == status, name
    assert client.post(f"{url}/restore", headers=world.person("other").headers).status_code == 403
    assert client.delete(url, params={"purge": True}).status_code == 403
    assert client.post(f"{url}/restore").status_code == 200


def test_a_key_of_a_deleted_job_makes_no_second_one(client: TestClient, world: World) -> None:
    key = {"Idempotency-Key": "k"}
    job = client.post("/api/v1/jobs", json=BODY, headers=key).json()
    world.work()
    client.delete(f"/api/v1/jobs/{job['id']}")
    answer = client.post("/api/v1/jobs", json=BODY, headers=key)
    assert answer.status_code == 409 and job["id"] in answer.json()["detail"] and world.count(Job) == 1


def test_a_purged_job_leaves_nothing_that_no_other_job_needs(any_client: TestClient, any_world: World) -> None:
    client, world, admin = any_client, any_world, any_world.person("admin").headers
    kept, gone = made(client, world), made(client, world, seed=1)
    both = files_of(world.services.store.root)
    client.delete(f"/api/v1/jobs/{gone}")
    assert client.delete(f"/api/v1/jobs/{gone}", params={"purge": True}, headers=admin).status_code == 204
    assert client.post(f"/api/v1/jobs/{gone}/restore").status_code == 404
    left = files_of(world.services.store.root)
    assert left < both
    keys = {step.key for step in world.steps(kept)}
    assert {path.split("/")[1] for path in left if path.startswith("steps/")} == keys
    assert sum(path.startswith("blobs/") for path in left) == world.count(Preview) > 0
    assert client.get(f"/api/v1/jobs/{kept}/artifacts").json()["ready"]
    client.delete(f"/api/v1/jobs/{kept}", params={"purge": True}, headers=admin)
    assert not rows(world) and not files_of(world.services.store.root)


def test_the_trash_is_emptied_after_its_days(client: TestClient, world: World) -> None:
    job_id = made(client, world)
    client.delete(f"/api/v1/jobs/{job_id}")
    soon, late = (utc_now() + timedelta(days=days) for days in (13, 15))
    assert not [item for item in janitor.doomed(world.services, soon) if item.kind == "trash"]
    [item] = [item for item in janitor.doomed(world.services, late) if item.kind == "trash"]
    assert item.name == job_id and client.get("/api/v1/trash").json()
    janitor.clean(world.services, now=late)
    assert not rows(world) and not files_of(world.services.store.root)


def test_a_sweep_is_deleted_with_its_jobs(client: TestClient, world: World) -> None:
    sweep = client.post("/api/v1/sweeps", json=SWEEP).json()
    url, job_id = f"/api/v1/sweeps/{sweep['id']}", sweep["cells"][0]["job_id"]
    assert client.delete(url).status_code == 409
    world.work()
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 409
    assert client.delete(url).status_code == 204
    assert client.get(url).status_code == client.get(f"/api/v1/jobs/{job_id}").status_code == 404
    assert client.get("/api/v1/sweeps").json()["data"] == []
    assert [one["kind"] for one in client.get("/api/v1/trash").json()] == ["sweep"]
    assert client.post(f"/api/v1/jobs/{job_id}/restore").status_code == 409
    assert client.post(f"{url}/restore").json()["state"] == "succeeded"
    assert client.get(f"/api/v1/jobs/{job_id}").status_code == 200
    admin = world.person("admin").headers
    assert client.delete(url, params={"purge": True}, headers=admin).status_code == 204
    assert world.count(Sweep) == 0 and not rows(world) and not files_of(world.services.store.root)


def test_a_holder_of_a_job_that_is_gone_has_lost_its_lease(world: World, owner: Person) -> None:
    world.submit(owner, chain("a"))
    lease = world.claim()
    assert lease is not None
    with world.services.database.write() as session:
        job = session.get_one(Job, lease.job_id)
        job.state, job.deleted_at = JobState.CANCELLED, utc_now()
    janitor.clean(world.services, now=utc_now() + timedelta(days=30))
    assert world.count(Job) == 0 and world.count(StoredStep) == 0
    with pytest.raises(LeaseLost):
        world.tell(lease, Progress(done=1, total=2, unit="x"))


def test_a_job_that_is_deleted_while_it_is_tried_again_stays_as_it_ended(
    any_world: World, any_client: TestClient
) -> None:
    job = any_world.submit(any_world.person("owner"), chain("a"))
    any_client.post(f"/api/v1/jobs/{job.id}/cancel")
    with ThreadPoolExecutor() as pool:
        with any_world.services.database.write() as session:
            jobs.lock(session, job.id).deleted_at = utc_now()
            session.flush()
            again = pool.submit(any_client.post, f"/api/v1/jobs/{job.id}/retry")
            assert not wait([again], timeout=0.5).done, "it waits for the deletion"
        assert again.result(timeout=10).status_code == 404
    assert any_world.job(job.id).state == JobState.CANCELLED
