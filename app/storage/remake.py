"""Steps whose output is gone or damaged are made again, by the job that misses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import null, select, update
from sqlalchemy.orm import Session

from app import leases
from app.jobs import Note, lock, settle, steps_of, stops, tell
from app.leases import Lease
from app.models import Step, StepNeed, StepState
from app.settings import DEFAULTS
from engine.errors import ErrorReport


def with_missing(session: Session, job_id: str, wanted: Iterable[int], is_whole: Callable[[str], bool]) -> list[int]:
    """Ids of these steps of a job, then of those they need in turn whose output is gone."""
    keys = {step.id: step.key for step in steps_of(session, job_id)}
    needs: dict[int, list[int]] = {}
    edges = select(StepNeed.step_id, StepNeed.need_id).where(StepNeed.step_id.in_(keys))
    for step_id, need_id in session.execute(edges):
        needs.setdefault(step_id, []).append(need_id)
    found = list(wanted)
    for id_ in found:  # grows on the way
        found += [need for need in needs.get(id_, ()) if need not in found and not is_whole(keys[need])]
    return found


def remake(
    session: Session,
    lease: Lease,
    is_whole: Callable[[str], bool],
    *,
    damaged: Mapping[str, str] | None = None,
    max_attempts: int = DEFAULTS.max_attempts,
) -> bool:
    """Give a step back until those it needs are made again that are not whole. Raises LeaseLost.

    damaged: key of each whose bytes were wrong -> its files. False: one was made too often, and the step failed.
    """
    _, *again = with_missing(session, lease.job_id, [lease.step_id], is_whole)
    lost = session.scalars(select(Step).where(Step.id.in_(again)).order_by(Step.position)).all()
    if any(step.attempts >= max_attempts for step in lost):
        leases.fail(session, lease, _too_often(lost))
        return False
    leases.release(session, lease)
    if stops(lock(session, lease.job_id)):
        return True
    empty: dict[str, Any] = {"error": null(), "result": null(), "seconds": None, "finished_at": None, "done": 0}
    anew = {"state": StepState.QUEUED, "cached": False, "not_before": 0.0}
    is_done = Step.state == StepState.SUCCEEDED
    session.execute(
        update(Step).where(Step.id.in_(again), is_done).values(**anew, **empty),
        execution_options={"synchronize_session": False},
    )
    tell(session, lease.job_id, [_note(step, (damaged or {}).get(step.key)) for step in lost])
    settle(session, lease.job_id)
    return True


def _note(step: Step, files: str | None) -> Note:
    detail = "What it left is gone from the store: it is made again."
    if files is not None:
        detail = f"Its files were damaged in the store ({files}): it is made again."
    data = {"state": StepState.QUEUED, "kind": step.kind, "outcome": "again", "detail": detail}
    return Note(kind="step", data=data, step_id=step.id, fence=step.fence)


def _too_often(steps: Iterable[Step]) -> ErrorReport:
    return ErrorReport(
        code="store_incomplete",
        message=f"What this step needs is lost from the store again and again: {', '.join(s.title for s in steps)}.",
        hint="Have an administrator look at the store's disk, then try again.",
    )
