"""Which step is done next, and by whom. Functions of a session that never commit.

The order is a matter of fairness, not of safety: only it reads a wall clock (`app.shares`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select, text, true, update
from sqlalchemy.orm import Session, aliased

from app import shares
from app.jobs import Note, Wish, lock, settle, tell, wish
from app.leases import LONGEST_BACK_OFF_S, Lease, engine_step
from app.models import Attempt, Job, JobState, Step, StepNeed, StepState, Worker, utc_now
from app.settings import DEFAULTS

# One claim at a time on PostgreSQL: claims are rare, and skipping locked rows would break the caps.
CLAIM_LOCK = 0x464144524D


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who claims: a worker on a host, with one device."""

    worker: str
    host: str
    device: str


class Room(NamedTuple):
    """Memory that a worker has for a step now, bytes."""

    host_bytes: int
    device_bytes: int | None  # null: it computes on the CPU, whose memory is the host's


def claim(
    session: Session,
    holder: Holder,
    *,
    room: Room | None = None,
    prefer_job: str | None = None,
    only: int | None = None,
    max_running_per_user: int = DEFAULTS.max_running_per_user,
) -> Lease | None:
    """Take the best step that can run, and that fits into this worker's memory; None when there is none.

    room: None when memory is not looked at. only: this step or none. A worker that is drained gets nothing. In order: the
    user who had the least of the workers lately, priority, the job this worker's engine has loaded, age.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CLAIM_LOCK})
    if is_draining(session, holder.worker):
        return None
    best = session.execute(_claimable(prefer_job, max_running_per_user, room, only)).one_or_none()
    if best is None:
        return None
    job = lock(session, best.job_id)
    if wish(job) != Wish.WORK:
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
    by = {"worker": holder.worker, "host": holder.host, "device": holder.device}
    session.add(Attempt(step_id=step.id, fence=step.fence, owner_id=job.owner_id, **by))
    note = {"state": StepState.RUNNING, "kind": step.kind, "attempt": step.attempts, "worker": holder.worker}
    tell(session, step.job_id, [Note(kind="step", data=note, step_id=step.id, fence=step.fence)])
    settle(session, step.job_id)
    return Lease(step_id=step.id, job_id=step.job_id, fence=step.fence, step=engine_step(step))


def runnable() -> ColumnElement[bool]:
    """Whether a step waits for nothing but a worker. Expects Step joined with its Job."""
    need, twin = aliased(Step), aliased(Step)
    unmet = exists().where(StepNeed.step_id == Step.id, need.id == StepNeed.need_id, need.state != StepState.SUCCEEDED)
    running_elsewhere = exists().where(twin.key == Step.key, twin.state == StepState.RUNNING)
    return and_(
        Step.state == StepState.QUEUED,
        _has_rested(time.time()),
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
        Job.cancel_requested.is_(False),
        Job.paused_by.is_(None),
        Job.error.is_(None),
        ~unmet,
        ~running_elsewhere,
    )


def _has_rested(now: float) -> ColumnElement[bool]:
    """Whether the pause after a crash is over. One that would end later than any can was made by a clock that was wrong."""
    return or_(Step.not_before <= now, Step.not_before > now + LONGEST_BACK_OFF_S)


def count_runnable(session: Session) -> int:
    """How many steps wait for nothing but a worker."""
    return (
        session.scalar(select(func.count()).select_from(Step).join(Job, Job.id == Step.job_id).where(runnable())) or 0
    )


def is_claimable(
    session: Session,
    holder: Holder,
    *,
    room: Room | None = None,
    only: int | None = None,
    max_running_per_user: int = DEFAULTS.max_running_per_user,
) -> bool:
    """Whether `claim` would find something."""
    if is_draining(session, holder.worker):
        return False
    return session.execute(_claimable(None, max_running_per_user, room, only)).first() is not None


def is_draining(session: Session, worker: str) -> bool:
    """Whether somebody wants this worker to take no steps."""
    return session.scalar(select(Worker.draining_by).where(Worker.id == worker)) is not None


def _fits(room: Room) -> ColumnElement[bool]:
    """A step of which nobody knows what it takes fits everywhere."""
    host, device = func.coalesce(Step.host_bytes, 0), func.coalesce(Step.device_bytes, 0)
    if room.device_bytes is None:
        return host + device <= room.host_bytes
    return and_(host <= room.host_bytes, device <= room.device_bytes)


def _claimable(
    prefer_job: str | None, max_running_per_user: int, room: Room | None, only: int | None
) -> Select[int, str]:
    running = (
        select(Job.owner_id, func.count().label("count"))
        .join(Step, Step.job_id == Job.id)
        .where(Step.state == StepState.RUNNING)
        .group_by(Job.owner_id)
        .subquery()
    )
    used = shares.used(time.time()).subquery()
    return (
        select(Step.id, Step.job_id)
        .join(Job, Job.id == Step.job_id)
        .outerjoin(running, running.c.owner_id == Job.owner_id)
        .outerjoin(used, used.c.owner_id == Job.owner_id)
        .where(
            runnable(),
            func.coalesce(running.c.count, 0) < max_running_per_user,
            _fits(room) if room else true(),
            true() if only is None else Step.id == only,
        )
        .order_by(
            func.round(func.coalesce(used.c.seconds, 0) / shares.GRAIN_S),
            Job.priority.desc(),
            case((Job.id == prefer_job, 0), else_=1),
            Job.id,
            Step.position,
        )
        .limit(1)
    )
