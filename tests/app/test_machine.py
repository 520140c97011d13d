"""The rules of jobs and leases under every order of events: submits, claims, heartbeats, crashes, cancels, reapers, and
workers that come back with a lease they lost. The invariants are those of docs/reliability (I1 to I9).
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, text, update

from app import auth, jobs, leases
from app.db import Base, Database
from app.errors import Conflict, TooMany, Unprocessable
from app.leases import Holder, Lease, LeaseLost, Reaper
from app.models import TERMINAL_JOB_STATES, TERMINAL_STEP_STATES, Attempt, Event, Job, Metric, Step, StepNeed
from engine import events
from engine.errors import ErrorReport
from engine.plan import Plan, StepKind
from engine.plan import Step as PlanStep
from tests.app.world import SPEC

MAX_UNFINISHED, LEASE_S = 4, 60.0
OWNERS, WORKERS = ("ann", "bob"), ("w1", "w2", "w3")
WHOSE = st.sampled_from(["good", "good", "rival", "any"])
ENDED = {"succeeded", "cached", "failed", "crashed", "lost", "released", "cancelled"}
ERROR = ErrorReport(code="nan_loss", message="Not finite.")


def diamond(data: str, teacher: str) -> Plan:
    """Two steps that need nothing, two that need some of them, one that needs those; two plans may share any."""
    shapes: list[tuple[str, StepKind, list[str]]] = [
        (data, StepKind.PREPARE, []),
        (teacher, StepKind.TEACH, []),
        (f"{data}-{teacher}", StepKind.RECOVER, [data, teacher]),
        (f"{data}-random", StepKind.SELECT, [data]),
        (f"{data}-{teacher}-package", StepKind.PACKAGE, [f"{data}-{teacher}", f"{data}-random"]),
    ]
    steps = tuple(
        PlanStep(
            key=key,
            kind=kind,
            title=key,
            params={},
            needs={str(index): need for index, need in enumerate(needs)},
            flop=1.0,
            size_bytes=1,
        )
        for key, kind, needs in shapes
    )
    return Plan(steps=steps, rows=(), package=steps[-1].key)


class Jobs(RuleBasedStateMachine):
    """What is done to the database, beside what must be true of it."""

    database: ClassVar[Database]
    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        empty(self.database)
        with self.database.write() as session:
            self.owners = {name: auth.add_user(session, name) for name in OWNERS}
        self.accepted: dict[tuple[str, str] | str, str] = {}  # (owner, key) or id -> id
        self.held: dict[int, Lease] = {}  # step -> the lease that is good
        self.past: list[Lease] = []
        self.heard: dict[int, float] = {}  # step -> when its holder last wrote
        self.now = 0.0
        self.reaper = Reaper(LEASE_S)

    @initialize()
    def begin(self) -> None:
        """Work to quarrel about: two jobs that share steps, and one of somebody else."""
        self.submit("ann", None, 0, "d", "t")
        self.submit("ann", None, 0, "e", "u")
        self.submit("bob", "k1", 0, "d", "t")

    @rule(
        owner=st.sampled_from(OWNERS),
        key=st.sampled_from([None, "k1", "k2"]),
        seed=st.integers(0, 1),
        data=st.sampled_from("de"),
        teacher=st.sampled_from("tu"),
    )
    def submit(self, owner: str, key: str | None, seed: int, data: str, teacher: str) -> None:
        spec = SPEC.model_copy(update={"seed": seed})
        known = self.accepted.get((owner, key)) if key else None
        try:
            with self.database.write() as session:
                job, is_new = jobs.create(
                    session,
                    owner=self.owners[owner],
                    name="a job",
                    spec=spec,
                    plan=diamond(data, teacher),
                    idempotency_key=key,
                    max_unfinished=MAX_UNFINISHED,
                )
        except Unprocessable:
            assert known and self._row(known).spec_sha256 != spec.digest()
        except TooMany:
            assert not known and self._unfinished(owner) >= MAX_UNFINISHED
        else:
            assert is_new == (known is None) and (is_new or (job.id == known and job.spec_sha256 == spec.digest()))
            assert not is_new or self._unfinished(owner) <= MAX_UNFINISHED
            self.accepted[(owner, key) if key else job.id] = job.id

    @rule(target=taken, worker=st.sampled_from(WORKERS), prefer=st.booleans(), cap=st.sampled_from([1, 2, 9]))
    def claim(self, worker: str, prefer: bool, cap: int) -> Any:
        busy = self._busy()
        with self.database.write() as session:
            prefer_job = session.scalar(select(func.max(Job.id))) if prefer else None
            lease = leases.claim(
                session,
                Holder(worker=worker, host="h", device="cpu"),
                prefer_job=prefer_job,
                max_running_per_user=cap,
            )
        if lease is None:
            with self.database.read() as session:
                assert not leases.is_claimable(session, max_running_per_user=cap)
            return multiple()
        assert lease.step_id not in self.held and busy[self._row(lease.job_id).owner_id] < cap
        self.held[lease.step_id] = lease
        self.heard[lease.step_id] = self.now
        self.past.append(lease)
        return lease

    @rule(target=taken, lease=taken, number=st.integers(0, 3), worker=st.sampled_from(WORKERS))
    def hand_over(self, lease: Lease, number: int, worker: str) -> Any:
        """A worker goes away, and another comes at once: now the first may come back."""
        self.end(lease, "good", number, "release")
        return self.claim(worker, False, 9)

    @rule(
        lease=taken,
        whose=WHOSE,
        number=st.integers(0, 3),
        x=st.integers(0, 3),
        kinds=st.sets(st.sampled_from(["started", "metric", "checkpoint", "progress"])),
    )
    def write(self, lease: Lease, whose: str, number: int, x: int, kinds: set[str]) -> None:
        lease = self._pick(whose, number, lease)
        told: dict[str, events.Event] = {
            "started": events.Started(total=4, unit="epochs"),
            "metric": events.Metric(x=x, values={"loss": float(lease.fence)}),
            "checkpoint": events.Checkpointed(done=x),
            "progress": events.Progress(done=x, total=4, unit="epochs"),
        }
        with self._as_holder(lease), self.database.write() as session:
            stop = leases.record(session, lease, [told[kind] for kind in sorted(kinds)])
            assert stop == jobs.stops(session.get_one(Job, lease.job_id))
            self.heard[lease.step_id] = self.now

    @rule(
        lease=taken,
        whose=WHOSE,
        number=st.integers(0, 3),
        how=st.sampled_from(["finish", "finish", "cached", "fail", "release", "crash", "stop"]),
    )
    def end(self, lease: Lease, whose: str, number: int, how: str) -> None:
        """Any lease may try, also one that was lost or used up: only the good one may have an effect."""
        lease = self._pick(whose, number, lease)
        if how == "stop" and not jobs.stops(self._row(lease.job_id)):
            return  # workers stop an engine only when they are told to
        with self._as_holder(lease, ends=True), self.database.write() as session:
            match how:
                case "stop":
                    leases.cancelled(session, lease)
                case "finish" | "cached":
                    leases.finish(session, lease, result={"x": 1}, seconds=1.0, cached=how == "cached")
                case "fail":
                    leases.fail(session, lease, ERROR)
                case "release":
                    leases.release(session, lease)
                case _:
                    leases.crash(session, lease, ERROR)

    @rule(which=st.integers(0, 19))
    def cancel(self, which: int) -> None:
        """Seldom, or there would be nothing left to work on."""
        ids = sorted(set(self.accepted.values()))
        if which >= len(ids):
            return
        try:
            with self.database.write() as session:
                jobs.cancel(session, session.get_one(Job, ids[which]), self.owners["ann"])
        except Conflict:
            assert self._row(ids[which]).state in {"succeeded", "failed"}

    @rule(seconds=st.sampled_from([1.0, 20.0, 59.0, 61.0]), restarts=st.booleans())
    def time_passes(self, seconds: float, restarts: bool) -> None:
        """Pauses after crashes end; a reaper looks, which may have been started anew."""
        self.now += seconds
        self.reaper = Reaper(LEASE_S) if restarts else self.reaper
        with self.database.write() as session:
            session.execute(update(Step).values(not_before=0.0))
            expired = self.reaper.sweep(session, self.now)
        for lease in expired:
            assert self.now - self.heard[lease.step_id] >= LEASE_S, "a lease that was renewed in time was taken away"
            assert self.held.pop(lease.step_id).fence == lease.fence

    @contextlib.contextmanager
    def _as_holder(self, lease: Lease, *, ends: bool = False) -> Iterator[None]:
        """Must work for the good lease, and raise LeaseLost without an effect for any other."""
        held = self.held.get(lease.step_id)
        good = held is not None and held.fence == lease.fence
        before = None if good else self._everything()
        try:
            yield
        except LeaseLost:
            assert not good and before == self._everything()
        else:
            assert good, "a lease that was lost still had an effect"
            if ends:
                del self.held[lease.step_id]

    def _pick(self, whose: str, number: int, lease: Lease) -> Lease:
        """A lease that is good, or one that was lost to somebody who holds the step now, or just the given one."""
        if whose == "rival":
            found = [old for old in self.past if self.held.get(old.step_id, old).fence != old.fence]
        else:
            found = [self.held[step_id] for step_id in sorted(self.held)] if whose == "good" else []
        return found[number % len(found)] if found else lease

    def _everything(self) -> list[Any]:
        with self.database.read() as session:
            return [
                session.execute(select(table.__table__).order_by(*table.__table__.primary_key)).all()
                for table in (Job, Step, Event, Attempt, Metric)
            ]

    def _row(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def _unfinished(self, owner: str) -> int:
        query = select(func.count()).select_from(Job).where(Job.owner_id == self.owners[owner].id)
        with self.database.read() as session:
            return session.scalar(query.where(Job.state.not_in(TERMINAL_JOB_STATES))) or 0

    def _busy(self) -> Counter[str]:
        """Running steps of each user."""
        query = select(Job.owner_id).join(Step, Step.job_id == Job.id).where(Step.state == "running")
        with self.database.read() as session:
            return Counter(session.scalars(query))

    @invariant()
    def accepted_jobs_and_no_others_exist(self) -> None:
        with self.database.read() as session:
            assert set(session.scalars(select(Job.id))) == set(self.accepted.values())

    @invariant()
    def running_steps_are_those_that_are_held(self) -> None:
        with self.database.read() as session:
            running = session.scalars(select(Step).where(Step.state == "running")).all()
        assert {step.id: step.fence for step in running} == {id_: lease.fence for id_, lease in self.held.items()}
        assert len({step.key for step in running}) == len(running), "equal steps run twice at once"
        assert all(step.worker for step in running)

    @invariant()
    def nothing_runs_before_what_it_needs(self) -> None:
        with self.database.read() as session:
            states: dict[int, str] = dict(session.execute(select(Step.id, Step.state)).all())
            edges = session.execute(select(StepNeed.step_id, StepNeed.need_id)).all()
        for step_id, need_id in edges:
            if states[step_id] in {"running", "succeeded", "failed"}:
                assert states[need_id] == "succeeded"

    def histories_are_legal(self) -> None:
        """Asked at the end: events are only ever appended, so what was wrong at any time is wrong still."""
        with self.database.read() as session:
            for job in session.scalars(select(Job)).all():
                told = session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.seq)).all()
                steps = {step.id: step for step in jobs.steps_of(session, job.id)}
                assert [event.seq for event in told] == list(range(1, job.last_seq + 1))
                self._check_states(job, told)
                self._check_steps(steps, told)

    def _check_states(self, job: Job, told: Any) -> None:
        states = [event.data["state"] for event in told if event.kind == "job"]
        assert states[0] == "queued" and states[-1] == job.state
        assert sum(state in TERMINAL_JOB_STATES for state in states) <= 1
        assert all(state not in TERMINAL_JOB_STATES for state in states[:-1]), "a terminal state was left"
        if job.state in TERMINAL_JOB_STATES:
            assert told[-1].kind == "job", "something was told after the end"

    def _check_steps(self, steps: dict[int, Step], told: Any) -> None:
        """Replay each step's events: claims and ends take turns, fences rise, and only the holder speaks."""
        fences: dict[int, int] = defaultdict(int)
        holders: dict[int, int | None] = defaultdict(lambda: None)
        ends: Counter[int] = Counter()
        for event in told:
            if event.step_id is None:
                continue
            if event.kind == "step" and event.data["state"] == "running":
                assert holders[event.step_id] is None and event.fence > fences[event.step_id]
                fences[event.step_id] = holders[event.step_id] = event.fence
                continue
            assert holders[event.step_id] == event.fence, "somebody spoke who did not hold the step"
            if event.kind == "step":
                assert event.data["outcome"] in ENDED
                holders[event.step_id] = None
                ends[event.step_id] += event.data["state"] in TERMINAL_STEP_STATES
        for step in steps.values():
            assert step.fence == fences[step.id] and ends[step.id] <= 1
            assert (holders[step.id] is not None) == (step.state == "running")

    def teardown(self) -> None:
        """Work goes on undisturbed: then every job ends, and the database still makes sense."""
        with self.database.write() as session:
            for step in session.scalars(select(Step).where(Step.state == "running")).all():
                self.reaper.expire(session, step)
        self.held.clear()
        for _ in range(200):
            with self.database.write() as session:
                session.execute(update(Step).values(not_before=0.0))
            lease = self.claim("w1", prefer=False, cap=9)
            if not isinstance(lease, Lease):
                break
            self.end(lease, "any", 0, "finish")
        with self.database.read() as session:
            left = session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES))).all()
            assert not left, "a job was forgotten"
            assert not session.scalars(select(Step.id).where(Step.state.not_in(TERMINAL_STEP_STATES))).all()
            outcomes = session.scalars(select(Attempt.outcome)).all()
        assert set(outcomes) <= ENDED
        self.histories_are_legal()


def empty(database: Database) -> None:
    """No rows at all."""
    with database.write() as session:
        if session.get_bind().dialect.name == "postgresql":
            tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
            session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
        else:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())


def run(database: Database, examples: int, steps: int) -> None:
    machine = type("JobsOnThisDatabase", (Jobs,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )


def test_nothing_is_lost_or_done_twice_on_sqlite() -> None:
    database = Database("sqlite://")  # in memory
    Base.metadata.create_all(database.engine)
    run(database, examples=20, steps=40)
    database.close()


@pytest.mark.postgres
def test_nothing_is_lost_or_done_twice_on_postgresql(postgres_database: Database) -> None:
    run(postgres_database, examples=5, steps=25)
