"""The rules of steps at work: claim, record, finish, fail, release, crash, expire. Functions of a session that never commit.

A lease is (step, fence). Every write by its holder asks for both; no row matched means that the lease was lost.
No rule reads a wall clock, but for the pause after a crash (`not_before`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from app.db import Base
from app.jobs import Note, lock, settle, stops, tell
from app.models import Attempt, Job, JobState, Mark, Metric, Preview, Step, StepNeed, StepState, utc_now
from engine import events as engine_events
from engine import plan as engine_plan
from engine.errors import ErrorReport

# One claim at a time on PostgreSQL: claims are rare, and skipping locked rows would break the caps.
CLAIM_LOCK = 0x464144524D
BACK_OFF_S, LONGEST_BACK_OFF_S = 30.0, 900.0


class LeaseLost(Exception):
    """Somebody else holds the step now, or nobody needs it: stop working on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on a step."""

    step_id: int
    job_id: str
    fence: int
    step: engine_plan.Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who claims: a worker on a host, with one device."""

    worker: str
    host: str
    device: str


def claim(
    session: Session, holder: Holder, *, prefer_job: str | None = None, max_running_per_user: int = 64
) -> Lease | None:
    """Take the best step that can run; None when there is none.

    The user with the fewest running steps first, then priority, then the job this worker's engine has loaded, then age.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CLAIM_LOCK})
    best = session.execute(_claimable(prefer_job, max_running_per_user)).one_or_none()
    if best is None or stops(lock(session, best.job_id)):
        return None
    step = session.scalars(
        update(Step)
        .where(Step.id == best.id, Step.state == StepState.QUEUED)
        .values(
            state=StepState.RUNNING,
            fence=Step.fence + 1,
            beat=0,
            attempts=Step.attempts + 1,
            worker=holder.worker,
            started_at=func.coalesce(Step.started_at, utc_now()),
        )
        .returning(Step),
        execution_options={"synchronize_session": False, "populate_existing": True},
    ).one_or_none()
    if step is None:
        return None
    session.add(
        Attempt(step_id=step.id, fence=step.fence, worker=holder.worker, host=holder.host, device=holder.device)
    )
    note = {"state": StepState.RUNNING, "kind": step.kind, "attempt": step.attempts, "worker": holder.worker}
    tell(session, step.job_id, [Note(kind="step", data=note, step_id=step.id, fence=step.fence)])
    settle(session, step.job_id)
    return Lease(step_id=step.id, job_id=step.job_id, fence=step.fence, step=engine_step(step))


def engine_step(step: Step) -> engine_plan.Step:
    """A row as the engine's own value."""
    return engine_plan.Step(
        key=step.key,
        kind=engine_plan.StepKind(step.kind),
        title=step.title,
        params=step.params,
        needs=step.needs,
        flop=step.flop,
        size_bytes=step.size_bytes,
    )


def runnable() -> ColumnElement[bool]:
    """Whether a step waits for nothing but a worker. Expects Step joined with its Job."""
    need, twin = aliased(Step), aliased(Step)
    unmet = exists().where(StepNeed.step_id == Step.id, need.id == StepNeed.need_id, need.state != StepState.SUCCEEDED)
    running_elsewhere = exists().where(twin.key == Step.key, twin.state == StepState.RUNNING)
    return and_(
        Step.state == StepState.QUEUED,
        Step.not_before <= time.time(),
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
        Job.cancel_requested.is_(False),
        Job.error.is_(None),
        ~unmet,
        ~running_elsewhere,
    )


def count_runnable(session: Session) -> int:
    """How many steps wait for nothing but a worker."""
    return (
        session.scalar(select(func.count()).select_from(Step).join(Job, Job.id == Step.job_id).where(runnable())) or 0
    )


def is_claimable(session: Session, *, max_running_per_user: int = 64) -> bool:
    """Whether `claim` would find something."""
    return session.execute(_claimable(None, max_running_per_user)).first() is not None


def _claimable(prefer_job: str | None, max_running_per_user: int) -> Select[int, str]:
    running = (
        select(Job.owner_id, func.count().label("count"))
        .join(Step, Step.job_id == Job.id)
        .where(Step.state == StepState.RUNNING)
        .group_by(Job.owner_id)
        .subquery()
    )
    load = func.coalesce(running.c.count, 0)
    return (
        select(Step.id, Step.job_id)
        .join(Job, Job.id == Step.job_id)
        .outerjoin(running, running.c.owner_id == Job.owner_id)
        .where(runnable(), load < max_running_per_user)
        .order_by(load, Job.priority.desc(), case((Job.id == prefer_job, 0), else_=1), Job.id, Step.position)
        .limit(1)
    )


def record(
    session: Session, lease: Lease, events: Sequence[engine_events.Event] = (), blobs: Mapping[str, str] | None = None
) -> bool:
    """Renew the lease and write what the engine told. Returns whether the worker should stop: the job was cancelled or failed.

    blobs: file of each preview among the events -> hash under which it lies in the store. Raises LeaseLost.
    """
    job = lock(session, lease.job_id)
    values: dict[str, Any] = {"beat": Step.beat + 1}
    notes: list[Note] = []
    points: dict[str, list[tuple[int, float]]] = {}
    progress: dict[str, Any] = {}
    for event in events:
        match event:
            case engine_events.Started():
                values |= {"done": event.resumed_at, "total": event.total, "unit": event.unit}
                notes.append(_note(lease, "started", event.model_dump(exclude={"type"})))
            case engine_events.Progress():
                progress = event.model_dump(exclude={"type"})
                values |= progress
            case engine_events.Metric():
                for name, value in event.values.items():
                    points.setdefault(name, []).append((event.x, value))
            case engine_events.Injection():
                data = event.model_dump(exclude={"type"})
                _upsert(session, Mark, ("step_key", "x"), [{"step_key": lease.step.key, "x": event.x, "data": data}])
                notes.append(_note(lease, "injection", data))
            case engine_events.Preview():
                notes.append(_record_preview(session, lease, event, (blobs or {})[event.file]))
            case engine_events.Log():
                notes.append(_note(lease, "log", event.model_dump(exclude={"type"})))
            case engine_events.Checkpointed():
                values["crash_streak"] = 0
                notes.append(_note(lease, "checkpoint", {"done": event.done}))
            case _:
                raise ValueError(f"{event.type} ends a step: call finish or fail")
    _write_as_holder(session, lease, values)
    _record_points(session, lease, points)
    if points:
        notes.append(_note(lease, "metrics", {"key": lease.step.key, "points": points}))
    if progress:
        notes.append(_note(lease, "progress", progress))
    if notes:
        tell(session, lease.job_id, notes)
    return stops(job)


def set_process(session: Session, lease: Lease, *, pid: int, pid_started: float) -> None:
    """Note which process works on the step, so that a survivor can be found and ended."""
    session.execute(
        update(Attempt)
        .where(Attempt.step_id == lease.step_id, Attempt.fence == lease.fence)
        .values(pid=pid, pid_started=pid_started)
    )


def finish(session: Session, lease: Lease, *, result: dict[str, Any], seconds: float, cached: bool = False) -> None:
    """The step is whole and published. Raises LeaseLost."""
    values = {"result": result, "seconds": seconds, "cached": cached, "done": Step.total}
    _end(session, lease, StepState.SUCCEEDED, values, outcome="cached" if cached else "succeeded")


def fail(session: Session, lease: Lease, error: ErrorReport) -> None:
    """The step cannot be done, and with it the job. Raises LeaseLost."""
    _end(session, lease, StepState.FAILED, {"error": error.model_dump()}, outcome="failed", detail=error.message)


def cancelled(session: Session, lease: Lease) -> None:
    """The step's engine was stopped because nobody wants the job any more. Raises LeaseLost."""
    _end(session, lease, StepState.CANCELLED, {}, outcome="cancelled")


def release(session: Session, lease: Lease) -> None:
    """Give the step back: the worker is going away, and left a checkpoint. Raises LeaseLost."""
    _end(session, lease, StepState.QUEUED, {}, outcome="released")


def crash(
    session: Session,
    lease: Lease,
    error: ErrorReport,
    *,
    outcome: str = "crashed",
    beat: int | None = None,
    max_crashes: int = 3,
    max_attempts: int = 20,
) -> None:
    """The attempt ended without a word. The step is tried again after a pause, or given up after too many crashes.

    beat: when given, only if no heartbeat came since it was seen: a late heartbeat wins against the reaper.
    """
    job = lock(session, lease.job_id)
    step = session.scalar(select(Step).where(*_held(lease, beat)), execution_options={"populate_existing": True})
    if step is None:
        raise LeaseLost(f"step {lease.step_id}, fence {lease.fence}")
    streak = step.crash_streak + 1
    if stops(job):
        _end(session, lease, StepState.CANCELLED, {}, outcome="cancelled", beat=beat)
    elif streak >= max_crashes or step.attempts >= max_attempts:
        given_up = {"error": error.model_dump(), "crash_streak": streak}
        _end(session, lease, StepState.FAILED, given_up, outcome=outcome, detail=error.message, beat=beat)
    else:
        pause = min(BACK_OFF_S * 2 ** (streak - 1), LONGEST_BACK_OFF_S) if streak > 1 else 0.0
        again = {"crash_streak": streak, "not_before": time.time() + pause}
        _end(session, lease, StepState.QUEUED, again, outcome=outcome, detail=error.message, beat=beat)


def _end(
    session: Session,
    lease: Lease,
    state: StepState,
    values: dict[str, Any],
    *,
    outcome: str,
    detail: str | None = None,
    beat: int | None = None,
) -> None:
    lock(session, lease.job_id)
    now = utc_now()
    ended = {"state": state, "worker": None, "finished_at": None if state == StepState.QUEUED else now}
    _write_as_holder(session, lease, ended | values, beat)
    session.execute(
        update(Attempt)
        .where(Attempt.step_id == lease.step_id, Attempt.fence == lease.fence)
        .values(outcome=outcome, detail=detail, finished_at=now)
    )
    error = values.get("error")
    if error is not None:
        blamed = error | {"step": lease.step.title, "kind": lease.step.kind}
        session.execute(update(Job).where(Job.id == lease.job_id, Job.error.is_(None)).values(error=blamed))
    data: dict[str, Any] = {"state": state, "kind": lease.step.kind, "outcome": outcome}
    data |= {name: values[name] for name in ("result", "seconds", "cached", "error") if name in values}
    if detail:
        data["detail"] = detail
    tell(session, lease.job_id, [_note(lease, "step", data)])
    settle(session, lease.job_id)


def _held(lease: Lease, beat: int | None = None) -> list[ColumnElement[bool]]:
    held = [Step.id == lease.step_id, Step.state == StepState.RUNNING, Step.fence == lease.fence]
    return held if beat is None else [*held, Step.beat == beat]


def _write_as_holder(session: Session, lease: Lease, values: dict[str, Any], beat: int | None = None) -> None:
    written = session.execute(
        update(Step).where(*_held(lease, beat)).values(**values), execution_options={"synchronize_session": False}
    )
    if written.rowcount == 0:  # type: ignore[attr-defined]
        raise LeaseLost(f"step {lease.step_id}, fence {lease.fence}")


def _note(lease: Lease, kind: str, data: dict[str, Any]) -> Note:
    return Note(kind=kind, data=data, step_id=lease.step_id, fence=lease.fence)


def _record_preview(session: Session, lease: Lease, event: engine_events.Preview, sha256: str) -> Note:
    data = event.model_dump(exclude={"type", "file"})
    row = {"step_key": lease.step.key, "x": event.x, "sha256": sha256, "data": data}
    _upsert(session, Preview, ("step_key", "x"), [row])
    return _note(lease, "preview", {"key": lease.step.key, "x": event.x, "sha256": sha256} | data)


def _record_points(session: Session, lease: Lease, points: Mapping[str, Sequence[tuple[int, float]]]) -> None:
    values = {(name, x): value for name, series in points.items() for x, value in series}
    rows = [{"step_key": lease.step.key, "name": name, "x": x, "value": value} for (name, x), value in values.items()]
    _upsert(session, Metric, ("step_key", "name", "x"), rows)


def _upsert(session: Session, table: type[Base], key: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, or write them again: an attempt that goes on from a checkpoint repeats what came after it."""
    if not rows:
        return
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table.__table__)
    renewed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    session.connection().execute(statement.on_conflict_do_update(index_elements=list(key), set_=renewed), rows)


@dataclass(slots=True)
class Reaper:
    """Takes away leases that nobody renews, by its own monotonic clock: no clock that can jump is asked.

    Any number of reapers may watch: who is first changes the row, and the others match none.
    """

    lease_s: float
    max_crashes: int = 3
    max_attempts: int = 20
    _seen: dict[tuple[int, int, int], float] | None = None

    def sweep(self, session: Session, now: float) -> list[Lease]:
        """Look once (call every few seconds). now: monotonic seconds. Returns the leases taken away."""
        running = select(Step).where(Step.state == StepState.RUNNING)
        rows = session.scalars(
            running.order_by(Step.job_id, Step.id)
        ).all()  # jobs in one order: reapers never deadlock
        seen = self._seen or {}
        self._seen = {(row.id, row.fence, row.beat): seen.get((row.id, row.fence, row.beat), now) for row in rows}
        stale = [row for row in rows if now - self._seen[row.id, row.fence, row.beat] >= self.lease_s]
        return [lease for row in stale if (lease := self.expire(session, row)) is not None]

    def expire(self, session: Session, row: Step) -> Lease | None:
        """Take one lease away; None when its holder was heard of meanwhile."""
        lease = Lease(step_id=row.id, job_id=row.job_id, fence=row.fence, step=engine_step(row))
        error = ErrorReport(
            code="worker_lost",
            message=f"The worker {row.worker} was not heard of while it worked on: {row.title}.",
            hint="Look at the worker's log and at the machine's memory; finished steps are kept, so submit the job again.",
        )
        try:
            crash(
                session,
                lease,
                error,
                outcome="lost",
                beat=row.beat,
                max_crashes=self.max_crashes,
                max_attempts=self.max_attempts,
            )
        except LeaseLost:
            return None
        return lease
