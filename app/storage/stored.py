"""The rows of what the store holds, and what of it nobody needs any more."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, Select, delete, exists, func, insert, or_, select
from sqlalchemy.orm import Session, aliased

from app.models import TERMINAL_JOB_STATES, TERMINAL_STEP_STATES, Job, JobState, Step, StoredStep
from engine.plan import StepKind
from engine.store import Store

DOWNLOADS = (StepKind.PACKAGE, StepKind.EXPORT)


def reconcile(session: Session, store: Store) -> None:
    """Let the rows be what the store's folder holds: it may have been filled, or emptied, by other hands."""
    there, known = set(store.whole_keys()), set(session.scalars(select(StoredStep.key)))
    forget(session, known - there)
    rows = []
    for key in there - known:
        try:
            manifest = store.manifest(key)
        except (OSError, ValueError):
            continue
        rows.append(
            {
                "key": key,
                "kind": manifest.kind,
                "size_bytes": manifest.size_bytes,
                "used_at": manifest.finished_at,
            }
        )
    if rows:
        session.execute(insert(StoredStep), rows)


def forget(session: Session, keys: Iterable[str]) -> None:
    """These are in the store no longer."""
    wanted = list(keys)
    if wanted:
        session.execute(delete(StoredStep).where(StoredStep.key.in_(wanted)))


def is_needed() -> ColumnElement[bool]:
    """Whether a stored step is kept whatever its age: for a job that has not ended or is pinned, or as its download."""
    keeps = or_(
        Job.state.not_in(TERMINAL_JOB_STATES),
        Job.pinned_by.is_not(None),
        (Job.state == JobState.SUCCEEDED) & Step.kind.in_(DOWNLOADS),
    )
    return exists().where(Step.key == StoredStep.key, Step.job_id == Job.id, keeps)


def unneeded(before: datetime) -> Select[StoredStep]:
    """Stored steps that no job needs, and none has used since."""
    used_since = exists().where(Step.key == StoredStep.key, Step.job_id == Job.id, Job.finished_at >= before)
    return (
        select(StoredStep)
        .where(StoredStep.used_at < before, ~is_needed(), ~used_since)
        .order_by(StoredStep.used_at, StoredStep.key)
    )


def unfinished(session: Session, key: str) -> list[Step]:
    """Steps with this key that have not ended."""
    return list(session.scalars(select(Step).where(Step.key == key, Step.state.not_in(TERMINAL_STEP_STATES))))


def of_nobody_else(session: Session, job_id: str) -> list[str]:
    """Keys of a job's steps that no other job has."""
    other = aliased(Step)
    shared = exists().where(other.key == Step.key, other.job_id != job_id)
    return list(session.scalars(select(Step.key).where(Step.job_id == job_id, ~shared)))


def held_bytes(session: Session, owner_id: str) -> int:
    """What the whole steps of a user's jobs weigh; one that several of their jobs share counts once, the trash does not."""
    keys = select(Step.key).join(Job, Job.id == Step.job_id).where(Job.owner_id == owner_id, Job.deleted_at.is_(None))
    total = session.scalar(select(func.sum(StoredStep.size_bytes)).where(StoredStep.key.in_(keys)))
    return int(total or 0)
