"""The rules of steps at work: record, finish, fail, release, crash. Functions of a session that never commit.

A lease is (step, fence). Every write by its holder asks for both; no row matched means that the lease was lost.
No rule reads a wall clock, but for the pause after a crash (`not_before`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import NoResultFound
from sqlalchemy.orm import Session

from app.db import Base
from app.jobs import Note, Wish, lock, settle, stops, tell, wish
from app.models import Attempt, Job, Mark, Metric, Preview, Step, StepState, StoredStep, Worker, utc_now
from app.settings import DEFAULTS
from app.shares import LOST
from engine import events as engine_events
from engine import plan as engine_plan
from engine.errors import ErrorReport
from engine.store import Manifest

BACK_OFF_S, LONGEST_BACK_OFF_S = 30.0, 900.0
CRASHES = ("crashed", LOST)  # outcomes of attempts that count against a step


class LeaseLost(Exception):
    """Somebody else holds the step now, or nobody needs it: stop working on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on a step."""

    step_id: int
    job_id: str
    fence: int
    step: engine_plan.Step


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


def record(
    session: Session,
    lease: Lease,
    events: Sequence[engine_events.Event] = (),
    blobs: Mapping[str, str] | None = None,
    *,
    max_log_bytes: int = DEFAULTS.max_log_bytes_per_job,
) -> Wish:
    """Renew the lease and write what the engine told. Returns what is wanted of the step now.

    blobs: file of each preview among the events -> hash under which it lies in the store. max_log_bytes: of the job's
    whole log; lines past it are left out. Raises LeaseLost.
    """
    job = _locked(session, lease)
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
                job.previews += 1
                notes.append(_record_preview(session, lease, event, (blobs or {})[event.file]))
            case engine_events.Log():
                notes += _record_line(job, lease, event, max_log_bytes)
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
    wanted = wish(job)
    return Wish.PAUSE if wanted == Wish.WORK and _is_drained(session, lease) else wanted


def _is_drained(session: Session, lease: Lease) -> bool:
    """Whether the worker that holds it is to take no steps: then it gives this one back."""
    holder = select(Worker.draining_by).join(Step, Step.worker == Worker.id)
    return session.scalar(holder.where(Step.id == lease.step_id)) is not None


def set_process(session: Session, lease: Lease, *, pid: int, pid_started: float) -> None:
    """Note which process works on the step, so that a survivor can be found and ended."""
    session.execute(
        update(Attempt)
        .where(Attempt.step_id == lease.step_id, Attempt.fence == lease.fence)
        .values(pid=pid, pid_started=pid_started)
    )


def finish(
    session: Session,
    lease: Lease,
    *,
    result: dict[str, Any],
    seconds: float,
    cached: bool = False,
    size_bytes: int | None = None,
) -> None:
    """The step is whole and published. size_bytes: of what lies in the store. Raises LeaseLost."""
    values = {"result": result, "seconds": seconds, "cached": cached, "done": Step.total}
    _end(session, lease, StepState.SUCCEEDED, values, outcome="cached" if cached else "succeeded")
    if size_bytes is not None:
        row = {"key": lease.step.key, "kind": lease.step.kind, "size_bytes": size_bytes, "used_at": utc_now()}
        _upsert(session, StoredStep, ("key",), [row])


def finish_whole(session: Session, lease: Lease, manifest: Manifest, *, cached: bool) -> None:
    """The step is whole and published, as its manifest in the store tells. Raises LeaseLost."""
    finish(
        session,
        lease,
        result=manifest.result,
        seconds=manifest.seconds,
        cached=cached,
        size_bytes=manifest.size_bytes,
    )


def fail(session: Session, lease: Lease, error: ErrorReport) -> None:
    """The step cannot be done, and with it the job. Raises LeaseLost."""
    _end(session, lease, StepState.FAILED, {"error": error.model_dump()}, outcome="failed", detail=error.message)


def cancelled(session: Session, lease: Lease) -> None:
    """The step's engine was stopped because nobody wants the job any more. Raises LeaseLost."""
    _end(session, lease, StepState.CANCELLED, {}, outcome="cancelled")


def release(session: Session, lease: Lease) -> None:
    """Give the step back, with a checkpoint: the worker is going away, or the job is to pause. Raises LeaseLost."""
    _end(session, lease, StepState.QUEUED, {}, outcome="released")


def crash(
    session: Session,
    lease: Lease,
    error: ErrorReport,
    *,
    outcome: str = "crashed",
    beat: int | None = None,
    max_crashes: int = DEFAULTS.max_crashes,
    max_attempts: int = DEFAULTS.max_attempts,
) -> None:
    """The attempt ended without a word. The step is tried again after a pause, or given up after too many crashes.

    beat: when given, only if no heartbeat came since it was seen: a late heartbeat wins against the reaper.
    """
    job = _locked(session, lease)
    step = session.scalar(select(Step).where(*_held(lease, beat)), execution_options={"populate_existing": True})
    if step is None:
        raise LeaseLost(f"step {lease.step_id}, fence {lease.fence}")
    streak = step.crash_streak + 1
    if stops(job):
        _end(session, lease, StepState.CANCELLED, {}, outcome="cancelled", beat=beat)
    elif streak >= max_crashes or _crashes(session, step) + 1 >= max_attempts:
        given_up = {"error": error.model_dump(), "crash_streak": streak}
        _end(session, lease, StepState.FAILED, given_up, outcome=outcome, detail=error.message, beat=beat)
    else:
        pause = min(BACK_OFF_S * 2 ** (streak - 1), LONGEST_BACK_OFF_S) if streak > 1 else 0.0
        again = {"crash_streak": streak, "not_before": time.time() + pause}
        _end(session, lease, StepState.QUEUED, again, outcome=outcome, detail=error.message, beat=beat)


def _crashes(session: Session, step: Step) -> int:
    """Attempts that crashed or were lost since people last had it tried again: who only gave it back did not fail."""
    since = step.fence - step.attempts
    crashed = Attempt.step_id == step.id, Attempt.fence > since, Attempt.outcome.in_(CRASHES)
    return session.scalar(select(func.count()).select_from(Attempt).where(*crashed)) or 0


def _locked(session: Session, lease: Lease) -> Job:
    """The job's row, held. Raises LeaseLost when the job was removed."""
    try:
        return lock(session, lease.job_id)
    except NoResultFound as error:
        raise LeaseLost(f"step {lease.step_id}, whose job is gone") from error


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
    _locked(session, lease)
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


def _record_line(job: Job, lease: Lease, event: engine_events.Log, most: int) -> list[Note]:
    """A line of the log; where it would be too much, a sentence in its place, and nothing from then on."""
    before = job.log_bytes
    job.log_bytes += len(event.message.encode())
    if job.log_bytes > most:
        if before > most:
            return []
        message = f"The log of this job ends here: it has {before:,} bytes, and the limit is {most:,}"
        event = engine_events.Log(message=f"{message} (FADRM_MAX_LOG_BYTES_PER_JOB).", level="warning")
    return [_note(lease, "log", event.model_dump(exclude={"type"}))]


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
