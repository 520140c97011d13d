"""Leases where several hands reach for them at once, and what the machine of test_machine.py does not ask."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, update

from app import claims, controls, jobs, leases
from app.claims import Holder
from app.errors import TooMany, Unprocessable
from app.leases import Lease, LeaseLost
from app.models import Attempt, Event, Job, Metric, Step
from app.reaper import Reaper
from app.sweeper import Sweeper, expire_all, sweep
from engine import events
from engine.errors import ErrorReport
from engine.plan import Plan, StepKind
from engine.plan import Step as PlanStep
from tests.app.world import SPEC, World, chain

CLAIMERS, CAP = 8, 3
CRASH = ErrorReport(code="engine_crashed", message="Killed by signal 9.")


def wide(name: str, width: int) -> Plan:
    """A plan of steps that need nothing."""
    steps = [
        PlanStep(key=f"{name}-{index}", kind=StepKind.EVALUATE, title="t", params={}, needs={}, flop=1, size_bytes=1)
        for index in range(width)
    ]
    return Plan(steps=tuple(steps), rows=(), package=steps[-1].key)


def test_many_who_claim_at_once_get_different_steps(any_world: World) -> None:
    for name in ("ann", "bob"):
        any_world.submit(any_world.person(name), wide(name, 12))
        any_world.submit(any_world.person(name), wide("shared", 4))
    start = Barrier(CLAIMERS)

    def work(number: int) -> list[Lease]:
        start.wait()
        done: list[Lease] = []
        holder = Holder(worker=f"w{number}", host="h", device="cpu")
        while True:
            with any_world.services.database.write() as session:
                lease = claims.claim(session, holder, max_running_per_user=CAP)
                running = session.execute(
                    select(Job.owner_id, func.count())
                    .join(Step, Step.job_id == Job.id)
                    .where(Step.state == "running")
                    .group_by(Job.owner_id)
                ).all()
            assert all(count <= CAP for _, count in running)
            if lease is None and not running:
                return done
            if lease is not None:
                any_world.finish(lease)
                done.append(lease)

    with ThreadPoolExecutor(CLAIMERS) as pool:
        done = [lease for found in pool.map(work, range(CLAIMERS)) for lease in found]
    assert len(done) == len({lease.step_id for lease in done}) == 2 * (12 + 4)
    assert any_world.count(Attempt) == len(done)
    with any_world.services.database.read() as session:
        assert {job.state for job in session.scalars(select(Job))} == {"succeeded"}


def test_of_many_who_submit_with_one_key_one_makes_a_job(any_world: World) -> None:
    person = any_world.person("owner")
    start = Barrier(CLAIMERS)

    def submit(number: int) -> str:
        start.wait()
        spec = SPEC.model_copy(update={"seed": number % 2})
        try:
            with any_world.services.database.write() as session:
                job, _ = jobs.create(
                    session, owner=person.user, name="a", spec=spec, plan=chain("a"), idempotency_key="k"
                )
                return job.id
        except Unprocessable:
            return "refused"

    with ThreadPoolExecutor(CLAIMERS) as pool:
        found = list(pool.map(submit, range(CLAIMERS)))
    assert len(set(found)) == 2 and found.count("refused") == CLAIMERS // 2 and any_world.count(Job) == 1


def test_a_quota_holds_against_many_at_once(any_world: World) -> None:
    person = any_world.person("owner")

    def submit(number: int) -> bool:
        try:
            with any_world.services.database.write() as session:
                jobs.create(session, owner=person.user, name="a", spec=SPEC, plan=chain(str(number)), max_unfinished=3)
        except TooMany:
            return False
        return True

    with ThreadPoolExecutor(CLAIMERS) as pool:
        assert sum(pool.map(submit, range(CLAIMERS))) == 3


def test_a_heartbeat_wins_against_a_reaper_that_looked_before(any_world: World) -> None:
    any_world.submit(any_world.person("owner"), chain("a"))
    lease = any_world.claim()
    assert lease is not None
    with any_world.services.database.read() as session:
        seen = session.get_one(Step, lease.step_id)
    any_world.tell(lease)
    with any_world.services.database.write() as session:
        assert Reaper(60).expire(session, seen) is None
    any_world.finish(lease)


def test_the_least_busy_user_comes_first_then_priority_then_age(any_world: World) -> None:
    ann, bob = any_world.person("ann"), any_world.person("bob")
    any_world.submit(ann, wide("a", 2))
    urgent = any_world.submit(ann, wide("b", 1))
    any_world.submit(bob, wide("c", 1))
    with any_world.services.database.write() as session:
        session.execute(update(Job).where(Job.id == urgent.id).values(priority=5))
    claimed = [lease.step.key for _ in range(4) if (lease := any_world.claim())]
    assert claimed == ["b-0", "c-0", "a-0", "a-1"]


def test_a_worker_goes_on_with_the_job_whose_engine_it_has(any_world: World) -> None:
    owner = any_world.person("owner")
    any_world.submit(owner, wide("a", 1))
    other = any_world.submit(owner, wide("b", 1))
    with any_world.services.database.write() as session:
        lease = claims.claim(session, Holder(worker="w", host="h", device="cpu"), prefer_job=other.id)
    assert lease is not None and lease.job_id == other.id


def test_a_crash_is_tried_again_then_given_up(any_world: World) -> None:
    job = any_world.submit(any_world.person("owner"), chain("a"))
    pauses = []
    for _ in range(3):
        lease = any_world.claim()
        assert lease is not None
        with any_world.services.database.write() as session:
            leases.crash(session, lease, CRASH)
        [step, _] = any_world.steps(job.id)
        pauses.append(max(round(step.not_before - time.time()), 0))
        with any_world.services.database.write() as session:
            session.execute(update(Step).values(not_before=0.0))
    assert pauses == [0, 60, 0]
    found = any_world.job(job.id)
    assert found.state == "failed" and found.error is not None and found.error["code"] == "engine_crashed"


def test_a_checkpoint_forgives_earlier_crashes(any_world: World) -> None:
    any_world.submit(any_world.person("owner"), chain("a"))
    for _ in range(6):
        lease = any_world.claim()
        assert lease is not None
        any_world.tell(lease, events.Checkpointed(done=1))
        with any_world.services.database.write() as session:
            leases.crash(session, lease, CRASH)
    assert any_world.claim() is not None


def test_a_step_that_is_given_back_often_has_not_failed(any_world: World) -> None:
    """A job of weeks, paused each evening or drained at each restart, outlives a crash."""
    job = any_world.submit(any_world.person("owner"), wide("a", 1))
    for _ in range(4):
        lease = any_world.claim()
        assert lease is not None
        any_world.release(lease)
    for state in ("queued", "failed"):
        lease = any_world.claim()
        assert lease is not None
        any_world.tell(lease, events.Checkpointed(done=1))
        with any_world.services.database.write() as session:
            leases.crash(session, lease, CRASH, max_attempts=2)
        assert any_world.steps(job.id)[0].state == state
    with any_world.services.database.write() as session:
        owner = any_world.person("owner").user
        controls.retry(session, session.get_one(Job, job.id), owner)
    lease = any_world.claim()
    assert lease is not None
    with any_world.services.database.write() as session:
        leases.crash(session, lease, CRASH, max_attempts=2)
    assert any_world.steps(job.id)[0].state == "queued", "crashes before people had it tried again count no more"


def test_a_clock_that_was_wrong_makes_no_step_wait(any_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    any_world.submit(any_world.person("owner"), wide("a", 1))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 365 * 24 * 3600)
    for _ in range(2):  # a pause follows the second crash
        lease = any_world.claim()
        assert lease is not None
        with any_world.services.database.write() as session:
            leases.crash(session, lease, CRASH)
    assert any_world.claim() is None
    monkeypatch.setattr(time, "time", lambda: now)
    assert any_world.claim() is not None, "somebody set the clock right, and the step waits for a year"


def test_points_that_are_told_again_are_there_once(any_world: World) -> None:
    any_world.submit(any_world.person("owner"), chain("a"))
    lease = any_world.claim()
    assert lease is not None
    for value in (1.0, 2.0):
        any_world.tell(lease, *(events.Metric(x=x, values={"loss": value}) for x in (0, 1, 1)))
    with any_world.services.database.read() as session:
        points = session.execute(select(Metric.x, Metric.value).order_by(Metric.x)).all()
    assert points == [(0, 2.0), (1, 2.0)]


def test_lines_past_the_limit_of_a_jobs_log_are_left_out_and_the_log_says_so(any_world: World) -> None:
    job = any_world.submit(any_world.person("owner"), chain("a"))
    lease = any_world.claim()
    assert lease is not None
    for message in ("Käfer", "bees", "wasps", "ants"):
        with any_world.services.database.write() as session:
            leases.record(session, lease, [events.Log(message=message)], max_log_bytes=10)
    with any_world.services.database.read() as session:
        lines = session.scalars(select(Event).where(Event.job_id == job.id, Event.kind == "log").order_by(Event.seq))
        told = [event.data for event in lines]
    assert [line["message"] for line in told[:-1]] == ["Käfer", "bees"]
    assert "it has 10 bytes, and the limit is 10 (FADRM_MAX_LOG_BYTES_PER_JOB)" in told[-1]["message"]
    assert told[-1]["level"] == "warning" and len(told) == 3


def test_all_leases_are_taken_back_when_an_embedded_server_starts(any_world: World) -> None:
    any_world.submit(any_world.person("owner"), wide("a", 3))
    held = [any_world.claim() for _ in range(3)]
    assert expire_all(any_world.services) == 3 and expire_all(any_world.services) == 0
    assert held[0] is not None
    with pytest.raises(LeaseLost):
        any_world.tell(held[0])
    assert any_world.claim() is not None


class CountingBell:
    """A bell that only counts."""

    def __init__(self) -> None:
        self.rings = 0

    def ring(self) -> None:
        self.rings += 1

    def close(self) -> None:
        pass


def test_the_sweeper_rings_while_work_waits_and_takes_dead_leases(world: World) -> None:
    bell = CountingBell()
    object.__setattr__(world.services, "bell", bell)
    job = world.submit(world.person("owner"), wide("a", 2))
    lease = world.claim()
    assert lease is not None
    reaper = Reaper(0.0)
    assert [found.step_id for found in sweep(world.services, reaper)] == [lease.step_id] and bell.rings == 1
    world.work()
    sweep(world.services, reaper)
    assert bell.rings == 1 and world.job(job.id).state == "succeeded"


def test_the_sweeper_outlives_errors(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bell = CountingBell()
    object.__setattr__(world.services, "bell", bell)
    world.submit(world.person("owner"), wide("a", 1))
    write, broken = world.services.database.write, 2

    def sometimes() -> object:
        nonlocal broken
        broken -= 1
        if broken >= 0:
            raise OSError("a disk hiccup")
        return write()

    world.services.database.write = sometimes  # type: ignore[method-assign, assignment]
    sweeper = Sweeper(world.services)
    sweeper.start()
    deadline = time.monotonic() + 10
    while not bell.rings and time.monotonic() < deadline:
        time.sleep(0.02)
    sweeper.stop()
    assert bell.rings and caplog.text.count("sweep failed") == 2
