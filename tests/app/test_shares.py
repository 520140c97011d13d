"""What users had of the workers, and that it evens out."""

from __future__ import annotations

import time
from datetime import timedelta

from sqlalchemy import select, text, update

from app import shares
from app.leases import Lease
from app.models import Attempt, Job, Step, User, utc_now
from tests.app.test_leases import wide
from tests.app.world import World

STEP_S = {"ann": 300.0, "bob": 600.0, "cid": 900.0}


def took(world: World, lease: Lease, seconds: float, *, ago_s: float = 0.0, outcome: str = "succeeded") -> None:
    """Let an attempt have taken so long, and have ended so long ago."""
    world.finish(lease)
    ended = utc_now() - timedelta(seconds=ago_s)
    times = {"started_at": ended - timedelta(seconds=seconds), "finished_at": ended, "outcome": outcome}
    with world.services.database.write() as session:
        session.execute(update(Attempt).where(Attempt.step_id == lease.step_id).values(**times))


def used(world: World) -> dict[str, float]:
    """Name -> seconds, to a tenth."""
    with world.services.database.read() as session:
        names = dict(session.execute(select(User.id, User.name)).all())
        return {names[owner]: round(value, 1) for owner, value in session.execute(shares.used(time.time()))}


def owner_of(world: World, lease: Lease) -> str:
    with world.services.database.read() as session:
        return session.scalars(select(User.name).join(Job, Job.owner_id == User.id).where(Job.id == lease.job_id)).one()


def test_three_users_with_steps_of_different_length_get_equal_time(any_world: World) -> None:
    for name in STEP_S:
        for number in range(2):
            any_world.submit(any_world.person(name), wide(f"{name}-{number}", 8))
    for _ in range(22):
        lease = any_world.claim()
        assert lease is not None
        took(any_world, lease, STEP_S[owner_of(any_world, lease)])
    assert used(any_world) == {"ann": 3600.0, "bob": 3600.0, "cid": 3600.0}


def test_workers_that_come_at_once_go_to_different_users(any_world: World) -> None:
    for name in STEP_S:
        any_world.submit(any_world.person(name), wide(name, 4))
    leases = [lease for _ in range(6) if (lease := any_world.claim())]
    assert sorted(owner_of(any_world, lease) for lease in leases) == ["ann", "ann", "bob", "bob", "cid", "cid"]


def test_who_is_alone_gets_every_worker(any_world: World) -> None:
    any_world.submit(any_world.person("ann"), wide("a", 6))
    assert all(any_world.claim() for _ in range(6))


def test_work_of_yesterday_and_time_lost_with_a_worker_are_not_charged(any_world: World) -> None:
    any_world.submit(any_world.person("ann"), wide("a", 4))
    found = [lease for _ in range(4) if (lease := any_world.claim())]
    took(any_world, found[0], 100.0)
    took(any_world, found[1], 1000.0, ago_s=shares.WINDOW_S)
    took(any_world, found[2], 1000.0, ago_s=shares.WINDOW_S - 10)  # ten seconds of it are of today
    took(any_world, found[3], 1000.0, outcome=shares.LOST)
    assert 109 < used(any_world)["ann"] <= 110.1


def test_a_days_work_is_summed_from_one_index_alone(world: World) -> None:
    asked = shares.used(time.time()).compile(world.services.database.engine, compile_kwargs={"literal_binds": True})
    with world.services.database.read() as session:
        found = session.execute(text(f"EXPLAIN QUERY PLAN {asked}".replace("IS NOT ?", f"IS NOT '{shares.LOST}'")))
        read = [row.detail for row in found if row.detail.startswith(("SCAN", "SEARCH"))]
    assert read and all("attempts USING COVERING INDEX" in how for how in read)


def test_a_step_that_has_just_begun_counts_as_a_minute(any_world: World) -> None:
    any_world.submit(any_world.person("ann"), wide("a", 1))
    assert used(any_world) == {}
    any_world.claim()
    assert used(any_world) == {"ann": shares.GRAIN_S}
    with any_world.services.database.write() as session:
        session.execute(update(Attempt).values(started_at=utc_now() - timedelta(hours=1)))
        assert session.scalars(select(Step.state)).one() == "running"
    assert 3600 <= used(any_world)["ann"] < 3660
