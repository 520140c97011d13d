"""What people do to jobs: cancel, pause, resume, retry, change. Functions of a session that never commit.

Each may be asked for twice: what is so already stays so. Each tells the job's history who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import null, select, update
from sqlalchemy.orm import Session

from app import audit
from app.errors import Conflict, Forbidden
from app.jobs import Note, get, lock, lock_user, may_use, settle, spec_of, steps_of, stops, tell, within_quota
from app.models import TERMINAL_JOB_STATES, Job, JobState, Step, StepState, User
from app.sent import uploads_of
from app.services import Services
from app.settings import DEFAULTS
from app.storage.remake import with_missing
from app.storage.stored import DOWNLOADS
from app.visibility import may_change
from engine.errors import ErrorReport

LEAST_PRIORITY, GREATEST_PRIORITY = -2, 2


def cancel(session: Session, job: Job, by: User) -> None:
    """Ask for the end of a job. Steps that wait end at once; those that run are stopped by their workers."""
    may_change(by, job)
    lock(session, job.id)
    if job.state in TERMINAL_JOB_STATES:
        if job.state == JobState.CANCELLED:
            return
        raise Conflict(f"{job.id} has {job.state} already.", hint="A finished job cannot be cancelled.")
    if not job.cancel_requested:
        job.cancel_requested = True
        _tell(session, job, "cancel", by)
    settle(session, job.id)
    session.refresh(job)


def pause(session: Session, job: Job, by: User) -> None:
    """Let no step begin; those that run leave a checkpoint and are given back by their workers."""
    may_change(by, job)
    lock(session, job.id)
    _must_be_open(job, "paused")
    if job.paused_by is None:
        job.paused_by = by.name
        _tell(session, job, "pause", by)
        settle(session, job.id)
    session.refresh(job)


def resume(session: Session, job: Job, by: User) -> None:
    """Let a paused job go on from where it is."""
    may_change(by, job)
    lock(session, job.id)
    _must_be_open(job, "resumed")
    if job.paused_by is not None:
        job.paused_by = None
        _tell(session, job, "resume", by)
        settle(session, job.id)
    session.refresh(job)


def retry(
    session: Session,
    job: Job,
    by: User,
    *,
    is_whole: Callable[[str], bool] = lambda _: True,
    max_unfinished: int = DEFAULTS.max_queued_per_user,
) -> None:
    """Do the steps again that failed or were cancelled, and those they need whose output is gone; the others stay.

    A job that has succeeded is tried again where a download is gone.
    is_whole: whether the store holds a step's output, by its key. Raises Conflict, TooMany, and Unprocessable where one of
    these steps reads an upload that is gone.
    """
    may_change(by, job)
    owner = session.get_one(User, job.owner_id)
    lock_user(session, owner)
    lock(session, job.id)
    get(session, by, job.id)  # who deletes a job may have been quicker
    again = list(with_missing(session, job.id, _undone(session, job, is_whole), is_whole))
    if job.state not in {JobState.FAILED, JobState.CANCELLED} and not (job.state == JobState.SUCCEEDED and again):
        _refuse_retry(job)
        return
    within_quota(session, owner, max_unfinished)
    if any(any(uploads_of(step.params)) for step in session.scalars(select(Step).where(Step.id.in_(again)))):
        may_use(session, owner, spec_of(job))
    anew: dict[str, Any] = {
        "state": StepState.QUEUED,
        "attempts": 0,
        "crash_streak": 0,
        "not_before": 0.0,
        "cached": False,
    }
    empty = dict.fromkeys(("error", "result"), null()) | dict.fromkeys(("seconds", "finished_at"))
    session.execute(update(Step).where(Step.id.in_(again)).values(**anew, **empty))
    session.execute(update(Job).where(Job.id == job.id).values(error=null(), cancel_requested=False))
    _tell(session, job, "retry", by, steps=len(again))
    settle(session, job.id, reopen=True)
    session.refresh(job)


def retry_now(services: Services, user: User, job_id: str) -> None:
    """`retry` of a job that the user may see, in a transaction of its own, and ring."""
    with services.database.write() as session:
        job = get(session, user, job_id)
        limit = services.settings.max_queued_per_user
        retry(session, job, user, is_whole=services.store.is_whole, max_unfinished=limit)
    services.bell.ring()  # after the commit


def change(
    session: Session,
    job: Job,
    by: User,
    *,
    name: str | None = None,
    priority: int | None = None,
    visibility: str | None = None,
    pinned: bool | None = None,
) -> None:
    """Give a job another name, priority or visibility, or pin it, so that the store keeps all its steps.

    Raises Forbidden when a member prefers a job to those of others.
    """
    may_change(by, job)
    lock(session, job.id)
    changes: dict[str, Any] = {}
    if name is not None and name != job.name:
        changes["name"] = name
    if priority is not None and priority != job.priority:
        _check_priority(job, by, priority)
        changes["priority"] = priority
    if visibility is not None and visibility != job.visibility:
        _check_visibility(job)
        audit.note(session, by, "job.visibility", job.id, was=job.visibility, now=visibility)
        changes["visibility"] = visibility
    if pinned is not None and pinned != (job.pinned_by is not None):
        job.pinned_by = by.name if pinned else None
    for field, value in changes.items():
        setattr(job, field, value)
    session.flush()
    if changes and job.state not in TERMINAL_JOB_STATES:  # nothing is told after a job's end
        _tell(session, job, "change", by, **changes)
    session.refresh(job)


def _tell(session: Session, job: Job, kind: str, by: User, **data: Any) -> None:
    session.flush()
    tell(session, job.id, [Note(kind=kind, data={"by": by.name} | data)])
    if by.id != job.owner_id:
        audit.note(session, by, f"job.{kind}", job.id, owner=job.owner_id)


def _must_be_open(job: Job, done: str) -> None:
    if job.state in TERMINAL_JOB_STATES:
        raise Conflict(f"{job.id} has {_ended(job)} already.", hint=f"Only a job that has not ended can be {done}.")
    if stops(job):
        raise Conflict(f"{job.id} is being stopped.", hint="Once it has ended, it can be tried again.")


def _refuse_retry(job: Job) -> None:
    """Raises Conflict, unless the job is under way, as a retry wants it."""
    if job.state == JobState.SUCCEEDED:
        raise Conflict(f"{job.id} has succeeded already.", hint="To do it anew, run it again as a new job.")
    if job.state == JobState.PAUSED:
        raise Conflict(f"{job.id} is paused.", hint="Resume it.")
    if stops(job):
        raise Conflict(f"{job.id} is still being stopped.", hint="Try again in some seconds.")


def _ended(job: Job) -> str:
    return "been cancelled" if job.state == JobState.CANCELLED else str(job.state)


def _undone(session: Session, job: Job, is_whole: Callable[[str], bool]) -> Iterator[int]:
    """Ids of steps without an output, and of those whose download is gone."""
    for step in steps_of(session, job.id):
        if step.state != StepState.SUCCEEDED or (step.kind in DOWNLOADS and not is_whole(step.key)):
            yield step.id


def _check_visibility(job: Job) -> None:
    """What a sweep shows of its jobs, and what they show themselves, is one thing."""
    if job.sweep_id is not None:
        raise Conflict(f"{job.id} is part of a sweep.", hint=f"Change who sees {job.sweep_id}: its jobs go with it.")


def _check_priority(job: Job, by: User, priority: int) -> None:
    if job.state in TERMINAL_JOB_STATES:
        raise Conflict(f"{job.id} has {_ended(job)} already.", hint="A priority is for jobs that have not ended.")
    if priority > max(job.priority, 0) and by.role != "admin":
        report = ErrorReport(
            code="forbidden",
            message="Only an administrator may raise a priority above 0.",
            hint="Lower your other jobs instead: -2 is the least.",
            pointer="/priority",
        )
        raise Forbidden(report.message, hint=report.hint, errors=[report])
