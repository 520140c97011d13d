"""Jobs and sweeps that are deleted: hidden at first, and restored by who finds that they were needed; then really gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from pydantic import Field
from sqlalchemy import Select, delete, exists, select, update
from sqlalchemy.orm import Session

from app import audit, visibility
from app.errors import Conflict, Forbidden, NotFound
from app.models import (
    TERMINAL_JOB_STATES,
    Attempt,
    Event,
    Job,
    Mark,
    Metric,
    Preview,
    Step,
    StepNeed,
    Sweep,
    User,
    Worker,
    utc_now,
)
from app.services import Services
from app.storage import stored
from app.views.out import Out
from engine.store import Store

Deleted = TypeVar("Deleted", Job, Sweep)
log = logging.getLogger(__name__)


class DeletedOut(Out):
    """A job or a sweep in the trash."""

    kind: Literal["job", "sweep"]
    id: str
    name: str
    owner: str
    deleted_by: str | None
    deleted_at: datetime
    removed_at: datetime | None = Field(description="When it is removed truly; null: never by itself.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What of a job that is gone is still in the store, and needed by no other."""

    keys: Sequence[str]
    blobs: Sequence[str]

    def remove(self, store: Store) -> None:
        """Delete it. After the commit: a step that is said to be whole is."""
        for key in self.keys:
            store.remove(key)
            store.forget_work(key)
        for digest in self.blobs:
            store.remove_blob(digest)


def visible(user: User, table: type[Deleted]) -> Select[Deleted]:
    """What of jobs or sweeps lies in the trash and a user may see."""
    return select(table).where(table.deleted_at.is_not(None), visibility.visible_to(user, table))


def listed(services: Services, user: User) -> list[DeletedOut]:
    """What lies in the trash and a user may see, the last deleted first; a job of a sweep lies there with its sweep."""
    days = services.settings.keep_trash_days
    with services.database.read() as session:
        names = dict(session.execute(select(User.id, User.name)).all())
        found: list[Job | Sweep] = [
            *session.scalars(visible(user, Job).where(Job.sweep_id.is_(None))),
            *session.scalars(visible(user, Sweep)),
        ]
    return sorted((_deleted(thing, names, days) for thing in found), key=lambda one: one.deleted_at, reverse=True)


def delete_job(services: Services, user: User, job_id: str, *, purge: bool = False) -> None:
    """Put a job that has ended into the trash. purge: remove it truly, now, also from there (administrators only).

    Raises NotFound, Forbidden, Conflict.
    """
    _may_purge(user, purge)
    remains = []
    with services.database.write() as session:
        job = _job(session, user, job_id)
        if job.sweep_id is not None:
            raise Conflict(
                f"{job_id} is a job of a sweep.", hint=f"Delete the sweep with all its jobs: {job.sweep_id}."
            )
        _put_away(session, user, [job])
        if purge:
            remains.append(_purge(session, job, user))
    for one in remains:
        one.remove(services.store)


def restore_job(services: Services, user: User, job_id: str) -> None:
    """Take a job out of the trash. Harmless when it is not there. Raises NotFound, Forbidden, Conflict."""
    with services.database.write() as session:
        job = _job(session, user, job_id)
        if job.sweep_id is not None and job.deleted_at is not None:
            raise Conflict(
                f"{job_id} is a job of a sweep.", hint=f"Restore the sweep with all its jobs: {job.sweep_id}."
            )
        job.deleted_at = job.deleted_by = None


def delete_sweep(services: Services, user: User, sweep_id: str, *, purge: bool = False) -> None:
    """Put a sweep and its jobs, which have all ended, into the trash; purge as of a job."""
    _may_purge(user, purge)
    remains = []
    with services.database.write() as session:
        sweep = _sweep(session, user, sweep_id)
        jobs = list(session.scalars(select(Job).where(Job.sweep_id == sweep_id).order_by(Job.id).with_for_update()))
        _put_away(session, user, jobs)
        if sweep.deleted_at is None:
            sweep.deleted_at, sweep.deleted_by = utc_now(), user.name
            session.flush()
        if purge:
            remains = [_purge(session, job, user) for job in jobs]
    for one in remains:
        one.remove(services.store)


def restore_sweep(services: Services, user: User, sweep_id: str) -> None:
    """Take a sweep and its jobs out of the trash. Harmless when they are not there."""
    with services.database.write() as session:
        sweep = _sweep(session, user, sweep_id)
        sweep.deleted_at = sweep.deleted_by = None
        session.execute(update(Job).where(Job.sweep_id == sweep_id).values(deleted_at=None, deleted_by=None))


def overdue(before: datetime) -> Select[Job]:
    """Jobs that were put into the trash so long ago."""
    return select(Job).where(Job.deleted_at < before).order_by(Job.deleted_at, Job.id)


def empty_one(services: Services, job_id: str, before: datetime) -> None:
    """Remove one job truly, if it is in the trash still, and for so long."""
    remains = None
    with services.database.write() as session:
        job = session.scalar(overdue(before).where(Job.id == job_id).with_for_update())
        if job is not None:
            remains = _purge(session, job, None)
    if remains is not None:
        remains.remove(services.store)


def _may_purge(user: User, purge: bool) -> None:
    if purge and user.role != "admin":
        hint = "Delete it without `purge`: it is gone for everybody, and removed after some days."
        raise Forbidden("Only an administrator may remove a job at once.", hint=hint)


def _job(session: Session, user: User, job_id: str) -> Job:
    query = select(Job).where(Job.id == job_id, visibility.visible_to(user, Job)).with_for_update()
    job = session.scalar(query.execution_options(populate_existing=True))
    if job is None:
        raise NotFound(f"There is no job {job_id}.", hint="Look at the list of jobs for its id.")
    visibility.may_change(user, job)
    return job


def _sweep(session: Session, user: User, sweep_id: str) -> Sweep:
    query = select(Sweep).where(Sweep.id == sweep_id, visibility.visible_to(user, Sweep)).with_for_update()
    sweep = session.scalar(query)
    if sweep is None:
        raise NotFound(f"There is no sweep {sweep_id}.", hint="Look at the list of sweeps for its id.")
    visibility.may_change(user, sweep)
    return sweep


def _put_away(session: Session, user: User, jobs: Sequence[Job]) -> None:
    """Raises Conflict for a job that has not ended, or that somebody pinned."""
    for job in jobs:
        if job.state not in TERMINAL_JOB_STATES:
            raise Conflict(f"{job.id} is {job.state}.", hint="Only what has ended can be deleted: cancel it first.")
        if job.pinned_by is not None:
            raise Conflict(f"{job.id} was pinned by {job.pinned_by}.", hint="Unpin it first.")
    for job in jobs:
        if job.deleted_at is not None:
            continue
        job.deleted_at, job.deleted_by = utc_now(), user.name
        if job.owner_id != user.id:
            audit.note(session, user, "job.delete", job.id)
    session.flush()


def _purge(session: Session, job: Job, by: User | None) -> Remains:
    """Delete a job's rows, and those of steps that no other job has. Its sweep goes with the last of its jobs."""
    keys = stored.of_nobody_else(session, job.id)
    steps = select(Step.id).where(Step.job_id == job.id)
    blobs = _blobs(session, keys)
    session.execute(update(Worker).where(Worker.step_id.in_(steps)).values(step_id=None))
    for table, of_job in (
        (Event, Event.job_id == job.id),
        (Attempt, Attempt.step_id.in_(steps)),
        (StepNeed, StepNeed.step_id.in_(steps)),
        (Step, Step.job_id == job.id),
        (Metric, Metric.step_key.in_(keys)),
        (Mark, Mark.step_key.in_(keys)),
        (Preview, Preview.step_key.in_(keys)),
    ):
        session.execute(delete(table).where(of_job), execution_options={"synchronize_session": False})
    stored.forget(session, keys)
    audit.note(session, by, "job.purge", job.id, owner=job.owner_id, name=job.name)
    sweep_id = job.sweep_id
    session.delete(job)
    session.flush()
    if sweep_id is not None:
        left = exists().where(Job.sweep_id == sweep_id)
        session.execute(delete(Sweep).where(Sweep.id == sweep_id, ~left))
    log.info("job removed", extra={"job_id": job.id, "steps": len(keys), "blobs": len(blobs)})
    return Remains(keys=keys, blobs=blobs)


def _blobs(session: Session, keys: Sequence[str]) -> list[str]:
    """Contact sheets that only these steps have."""
    shown = select(Preview.sha256).where(Preview.step_key.not_in(keys))
    query = select(Preview.sha256).where(Preview.step_key.in_(keys), Preview.sha256.not_in(shown))
    return list(session.scalars(query.distinct()))


def _deleted(thing: Job | Sweep, names: dict[str, str], days: float) -> DeletedOut:
    assert thing.deleted_at is not None
    return DeletedOut(
        kind="sweep" if isinstance(thing, Sweep) else "job",
        id=thing.id,
        name=thing.name,
        owner=names[thing.owner_id],
        deleted_by=thing.deleted_by,
        deleted_at=thing.deleted_at,
        removed_at=thing.deleted_at + timedelta(days=days) if days else None,
    )
