"""What a test of the rules knows of its database, and what must be true of it at any time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant
from sqlalchemy import func, select, text

from app import auth, jobs
from app.db import Base, Database
from app.leases import Lease, LeaseLost
from app.models import TERMINAL_JOB_STATES, Attempt, Event, Job, Metric, Step, StepNeed
from app.reaper import Reaper
from engine.plan import Plan, StepKind
from engine.plan import Step as PlanStep

MAX_UNFINISHED, LEASE_S = 4, 60.0
OWNERS = ("ann", "bob")


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


class Known(RuleBasedStateMachine):
    """What was done to the database, beside what must be true of it."""

    database: ClassVar[Database]

    def __init__(self) -> None:
        super().__init__()
        empty(self.database)
        with self.database.write() as session:
            self.owners = {name: auth.add_user(session, name) for name in OWNERS}
            self.owners["root"] = auth.add_user(session, "root", "admin")
        self.accepted: dict[tuple[str, str] | str, str] = {}  # (owner, key) or id -> id
        self.held: dict[int, Lease] = {}  # step -> the lease that is good
        self.past: list[Lease] = []
        self.heard: dict[int, float] = {}  # step -> when its holder last wrote
        self.streaks: dict[int, int] = {}  # step -> crashes since its last checkpoint
        self.now = 0.0
        self.reaper = Reaper(LEASE_S)

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

    def _whole_steps(self, job_id: str) -> set[int]:
        with self.database.read() as session:
            return {step.id for step in jobs.steps_of(session, job_id) if step.state == "succeeded"}

    def _is_held(self, job_id: str) -> bool:
        return any(lease.job_id == job_id for lease in self.held.values())

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

    @invariant()
    def a_paused_job_rests(self) -> None:
        with self.database.read() as session:
            for job in session.scalars(select(Job).where(Job.paused_by.is_not(None))).all():
                assert (job.state == "running") == self._is_held(job.id) and job.state in {"paused", "running"}


def empty(database: Database) -> None:
    """No rows at all."""
    with database.write() as session:
        if session.get_bind().dialect.name == "postgresql":
            tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
            session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
        else:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
