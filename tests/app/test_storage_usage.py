"""The store by kind, by user and by job: as the API, and as `fadrm storage` tells it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.models import AuditEvent, Job, StoredStep, utc_now
from app.storage import usage
from tests.app.world import World, chain

URL = "/api/v1/system/storage"


@pytest.fixture
def filled(any_world: World) -> World:
    """Two users with jobs that share two of three steps."""
    whole = chain("a", 3)
    for name, plan in (("owner", whole), ("other", whole.model_copy(update={"steps": whole.steps[:2]}))):
        any_world.submit(any_world.person(name), plan, name=f"of {name}")
    any_world.work()
    return any_world


def age(world: World, days: float) -> None:
    """Let everything be older."""
    then = utc_now() - timedelta(days=days)
    with world.services.database.write() as session:
        session.execute(update(Job).values(finished_at=then))
        session.execute(update(StoredStep).values(used_at=then))


def test_the_store_is_told_by_kind_user_and_job(filled: World) -> None:
    admin = filled.person("admin").user
    found = usage.usage(filled.services, admin)
    weights = {key: filled.services.store.manifest(key).size_bytes for key in ("a-0", "a-1", "a-2")}
    by_kind = {one.kind: (one.count, one.size_bytes) for one in found.kinds}
    assert by_kind["prepare"] == (1, weights["a-0"]) and by_kind["package"] == (1, weights["a-2"])
    assert by_kind["previews"][0] == 1
    assert {(one.name, one.jobs, one.size_bytes) for one in found.users} == {
        ("owner", 1, sum(weights.values())),
        ("other", 1, weights["a-0"] + weights["a-1"]),
    }
    by_name = {one.name: (one.size_bytes, one.own_bytes) for one in found.jobs}
    assert by_name["of owner"] == (sum(weights.values()), weights["a-2"])
    assert by_name["of other"] == (weights["a-0"] + weights["a-1"], 0)
    assert found.disk.free_bytes < found.disk.total_bytes and not found.disk.is_full


def test_who_is_no_administrator_sees_their_own(filled: World) -> None:
    age(filled, 100)
    found = usage.usage(filled.services, filled.person("owner").user)
    assert [one.name for one in found.users] == ["owner"] and [one.name for one in found.jobs] == ["of owner"]
    assert not found.freeable and not found.items


def test_an_administrator_sees_what_can_go_and_lets_it_go(client: TestClient, world: World) -> None:
    job = world.submit(world.person("owner"), chain("a", 3))
    world.work()
    age(world, 100)
    admin = world.person("admin").headers
    before = client.get(URL, headers=admin).json()
    assert {one["kind"]: one["count"] for one in before["freeable"]}["steps"] == 2
    assert client.post(f"{URL}/clean").status_code == 403
    gone = client.post(f"{URL}/clean", headers=admin).json()
    assert gone["kinds"] == before["freeable"] and gone["items"] == before["items"]
    after = client.get(URL, headers=admin).json()
    assert not after["freeable"] and [one["kind"] for one in after["kinds"]] == ["package", "previews"]
    assert world.job(job.id).state == "succeeded" and world.count(AuditEvent) >= 1
