"""The rules of jobs: create, read, and how a job's state follows from its steps. Functions of a session that never commit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.orm import Session

from app import visibility
from app.errors import Conflict, NotFound, TooMany, Unprocessable
from app.ids import new_id
from app.models import (
    TERMINAL_JOB_STATES,
    Event,
    Job,
    JobState,
    Step,
    StepNeed,
    StepState,
    Upload,
    UploadKind,
    User,
    utc_now,
)
from app.settings import DEFAULTS
from engine import sources
from engine.errors import ErrorReport
from engine.plan import Plan
from engine.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An event to be numbered and written."""

    kind: str
    data: dict[str, Any]
    step_id: int | None = None
    fence: int = 0


class Wish(StrEnum):
    """What is wanted of the steps of a job that run."""

    WORK = "work"  # go on
    PAUSE = "pause"  # leave a checkpoint, and give the step back
    STOP = "stop"  # nobody needs it: it was cancelled, or another step failed


def create(
    session: Session,
    *,
    owner: User,
    name: str,
    spec: JobSpec,
    plan: Plan,
    idempotency_key: str | None = None,
    max_unfinished: int = DEFAULTS.max_queued_per_user,
    **more: Any,
) -> tuple[Job, bool]:
    """Accept a job: its row, its steps and their edges. Returns it, and whether it is new.

    The same idempotency key gives the same job back; with another spec it is refused. more: further columns of the row.
    """
    lock_user(session, owner)
    known = repeated(session, owner, spec, idempotency_key, more.get("visibility"))
    if known is not None:
        return known, False
    within_quota(session, owner, max_unfinished)
    may_use(session, owner, spec)
    more["idempotency_key"] = idempotency_key
    return add(session, owner=owner, name=name, spec=spec, plan=plan, **more), True


def add(session: Session, *, owner: User, name: str, spec: JobSpec, plan: Plan, **more: Any) -> Job:
    """Write a job down, its steps and their edges; no limit is looked at. more: further columns of the row.

    What a step needs that is no step of the plan has to be in the store.
    """
    job = Job(
        id=new_id("job"),
        owner_id=owner.id,
        name=name,
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.digest(),
        rows=[row.model_dump(mode="json") for row in plan.rows],
        package_key=plan.package,
        created_at=utc_now(),
        **more,
    )
    session.add(job)
    session.flush()
    _add_steps(session, job, plan)
    tell(session, job.id, [Note(kind="job", data={"state": JobState.QUEUED})])
    session.refresh(job)
    return job


def may_use(session: Session, owner: User, spec: JobSpec) -> None:
    """Raises Unprocessable for an upload that the owner may not see."""
    for report in unseen(session, owner, spec, hold=True):
        pointed = report.model_copy(update={"pointer": f"/spec{report.pointer}"})
        raise Unprocessable(report.message, hint=report.hint, errors=[pointed])


def unseen(session: Session, user: User, spec: JobSpec, *, hold: bool = False) -> Iterator[ErrorReport]:
    """A report on each upload of a spec that is not there for a user to see. hold: nobody removes the others meanwhile."""
    images, weights = UploadKind.IMAGES, UploadKind.WEIGHTS
    named = [("/dataset/id", images, spec.dataset.id)] if isinstance(spec.dataset, sources.Upload) else []
    named += [(f"/teachers/{i}/upload", weights, one.upload) for i, one in enumerate(spec.teachers) if one.upload]
    for pointer, kind, upload_id in named:
        seen = select(Upload.id).where(Upload.kind == kind, visibility.visible_to(user, Upload))
        seen = seen.with_for_update(read=True, key_share=True) if hold else seen
        if session.scalar(seen.where(Upload.id == upload_id)) is None:
            code, place = ("dataset_missing", "datasets") if kind == images else ("weights_missing", "weights")
            message = f"There is no upload of {kind} {upload_id}."
            hint = f"GET /api/v1/{place} lists those that you may use."
            yield ErrorReport(code=code, message=message, hint=hint, pointer=pointer)


def lock_user(session: Session, user: User) -> None:
    """One submission at a time for each user: neither a key nor the quota can be passed by two requests at once."""
    session.execute(select(User.id).where(User.id == user.id).with_for_update(key_share=True))


def repeated(
    session: Session, owner: User, spec: JobSpec, idempotency_key: str | None, shown_to: str | None = None
) -> Job | None:
    """The job that this key made before; None when it made none. Its name does not matter: it may be another by now.

    Raises Unprocessable when that had another spec, or is seen by more people than it should be now.
    """
    if idempotency_key is None:
        return None
    known = session.scalar(select(Job).where(Job.owner_id == owner.id, Job.idempotency_key == idempotency_key))
    if known is not None and known.deleted_at is not None:
        raise Conflict(
            f"This Idempotency-Key was used before, for {known.id}, which was deleted.",
            hint="Restore that job, or send a new Idempotency-Key.",
        )
    if known is not None and known.spec_sha256 != spec.digest():
        raise Unprocessable(
            f"This Idempotency-Key was used before, for {known.id}, with another spec.",
            hint="Send a new Idempotency-Key with every new job.",
        )
    if known is not None:
        visibility.refuse_wider(known, shown_to)
    return known


def within_quota(session: Session, owner: User, max_unfinished: int) -> None:
    """Raises TooMany when the user may not submit more now. A sweep counts once, however many jobs it has."""
    submitted = func.count(func.distinct(func.coalesce(Job.sweep_id, Job.id)))
    unfinished = session.scalar(
        select(submitted).where(Job.owner_id == owner.id, Job.state.not_in(TERMINAL_JOB_STATES))
    )
    if unfinished is not None and unfinished >= max_unfinished:
        raise TooMany(
            f"You have {unfinished} unfinished jobs, and the limit is {max_unfinished}.",
            hint="Wait for some to end, or cancel some.",
            headers={"Retry-After": "60"},
        )


def _add_steps(session: Session, job: Job, plan: Plan) -> None:
    rows = [
        {
            "job_id": job.id,
            "position": position,
            "key": step.key,
            "kind": step.kind,
            "title": step.title,
            "params": step.params,
            "needs": step.needs,
            "flop": step.flop,
            "size_bytes": step.size_bytes,
            "host_bytes": step.host_bytes or None,
            "device_bytes": step.device_bytes if step.host_bytes else None,
        }
        for position, step in enumerate(plan.steps)
    ]
    ids = {key: step_id for step_id, key in session.execute(insert(Step).returning(Step.id, Step.key), rows)}
    edges = [
        {"step_id": ids[step.key], "need_id": ids[key]}
        for step in plan.steps
        for key in sorted(ids.keys() & set(step.needs.values()))
    ]
    if edges:
        session.execute(insert(StepNeed), edges)


def tell(session: Session, job_id: str, notes: Sequence[Note]) -> int:
    """Append events under the next numbers, which have no gap. Returns the last number."""
    last: int = session.execute(
        update(Job).where(Job.id == job_id).values(last_seq=Job.last_seq + len(notes)).returning(Job.last_seq)
    ).scalar_one()
    first = last - len(notes) + 1
    now = utc_now()
    rows = [
        {
            "job_id": job_id,
            "seq": seq,
            "step_id": note.step_id,
            "fence": note.fence,
            "kind": note.kind,
            "data": note.data,
            "at": now,
        }
        for seq, note in enumerate(notes, start=first)
    ]
    if rows:
        session.execute(insert(Event), rows)
    return last


def visible_to(user: User) -> Select[Job]:
    """The jobs that a user may see; those in the trash are not there."""
    return select(Job).where(visibility.visible_to(user, Job), Job.deleted_at.is_(None))


def get(session: Session, user: User, job_id: str) -> Job:
    """A job that the user may see. Raises NotFound, also for a foreign one."""
    job = session.scalar(visible_to(user).where(Job.id == job_id))
    if job is None:
        raise NotFound(f"There is no job {job_id}.", hint="Look at the list of jobs for its id.")
    return job


def spec_of(job: Job) -> JobSpec:
    """What was asked for. Raises Unprocessable when that was of an older version."""
    try:
        return JobSpec.model_validate(job.spec)
    except ValidationError as error:
        raise Unprocessable(
            f"The spec of {job.id} is of an older version of this server.", hint="Edit it, and submit it as a new job."
        ) from error


def steps_of(session: Session, job_id: str) -> list[Step]:
    """A job's steps in the order of its plan."""
    return list(session.scalars(select(Step).where(Step.job_id == job_id).order_by(Step.position)))


def lock(session: Session, job_id: str) -> Job:
    """A job's row, as it is now, held until the transaction ends. Always taken before rows of its steps: no deadlock."""
    return session.get_one(Job, job_id, populate_existing=True, with_for_update=True)


def stops(job: Job) -> bool:
    """Whether nothing of the job should run any more: it was cancelled, or one of its steps failed."""
    return job.cancel_requested or job.error is not None


def wish(job: Job) -> Wish:
    """What its workers are to do."""
    if stops(job):
        return Wish.STOP
    return Wish.WORK if job.paused_by is None else Wish.PAUSE


def settle(session: Session, job_id: str, *, reopen: bool = False) -> None:
    """Let a job's state follow from its steps. Called in every transaction that changed one.

    reopen: also when the job had ended.
    """
    job = lock(session, job_id)
    if job.state in TERMINAL_JOB_STATES and not reopen:
        return
    if stops(job):
        session.execute(
            update(Step)
            .where(Step.job_id == job_id, Step.state == StepState.QUEUED)
            .values(state=StepState.CANCELLED, finished_at=utc_now())
        )
    by_state = select(Step.state, func.count()).where(Step.job_id == job_id).group_by(Step.state)
    counts: dict[str, int] = dict(session.execute(by_state).all())
    state = _state_from(counts, is_paused=job.paused_by is not None)
    if state == job.state:
        return
    now = utc_now()
    job.state = state
    if state not in {JobState.QUEUED, JobState.PAUSED, JobState.CANCELLED}:
        job.started_at = job.started_at or now
    job.finished_at = now if state in TERMINAL_JOB_STATES else None
    job.paused_by = None if state in TERMINAL_JOB_STATES else job.paused_by
    session.flush()
    data: dict[str, Any] = {"state": state} | ({"error": job.error} if job.error else {})
    tell(session, job_id, [Note(kind="job", data=data)])


def _state_from(counts: dict[str, int], *, is_paused: bool) -> JobState:
    if counts.get(StepState.RUNNING):
        return JobState.RUNNING
    if counts.get(StepState.QUEUED):
        if is_paused:
            return JobState.PAUSED
        begun = set(counts) != {StepState.QUEUED}
        return JobState.RUNNING if begun else JobState.QUEUED
    if counts.get(StepState.FAILED):
        return JobState.FAILED
    return JobState.CANCELLED if counts.get(StepState.CANCELLED) else JobState.SUCCEEDED


def events_after(session: Session, job_ids: Iterable[str], after: dict[str, int], limit: int = 1000) -> list[Event]:
    """Events of some jobs past the numbers given, oldest first within each job."""
    found: list[Event] = []
    for job_id in job_ids:
        query = select(Event).where(Event.job_id == job_id, Event.seq > after.get(job_id, 0)).order_by(Event.seq)
        found.extend(session.scalars(query.limit(limit)))
    return found
