"""Workers as they last said of themselves."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Job, Step, User, Worker, utc_now
from app.views.out import Out
from app.visibility import visible_to
from app.workers import ONLINE_S


class StrangerOut(Out):
    """A process of somebody else on a worker's GPU."""

    pid: int
    name: str
    used_bytes: int | None


class WorkerOut(Out):
    """A worker as it last said of itself."""

    id: str
    host: str
    device: str
    device_name: str
    version: str
    online: bool
    age_seconds: float = Field(description="Since it was last heard of.")
    step: str | None = Field(description="Title of the step that it works on; not told of a job that you may not see.")
    job_id: str | None = Field(description="The job that it works for; null when it works for none that you may see.")
    draining_by: str | None = Field(description="Who wants it to take no steps; null: it takes them.")
    refuses: str | None = Field(description="Why it begins no step; null: it would.")
    host_free_bytes: int | None
    host_total_bytes: int | None
    device_free_bytes: int | None = Field(description="Of its GPU; null on a CPU, and where the driver does not tell.")
    device_total_bytes: int | None
    strangers: list[StrangerOut] = Field(description="Other programs on its GPU, for which it takes no steps.")
    samples: list[list[float]] = Field(
        description="Some minutes, oldest first: share of the GPU at work, share of its memory in use, each 0 to 1."
    )
    started_at: datetime
    seen_at: datetime


ELSEWHERE = "somebody else’s job"
SAME = frozenset(WorkerOut.model_fields) - {"online", "age_seconds", "step", "job_id", "strangers", "samples"}


def workers(session: Session, user: User) -> list[WorkerOut]:
    """Every worker ever heard of, the latest first. Of jobs that the user may not see is told that there are such."""
    now = utc_now()
    query = select(Worker, Step.title, Job.id, visible_to(user, Job).label("is_shown"))
    query = query.outerjoin(Step, Step.id == Worker.step_id).outerjoin(Job, Job.id == Step.job_id)
    rows = session.execute(query.order_by(Worker.seen_at.desc())).all()
    return [
        _out(worker, ELSEWHERE, None, now)
        if is_shown is False
        else _out(worker, title, job_id, now)  # None: it is idle
        for worker, title, job_id, is_shown in rows
    ]


def worker_out(session: Session, worker: Worker) -> WorkerOut:
    """One worker."""
    step = session.get(Step, worker.step_id) if worker.step_id else None
    return _out(worker, step.title if step else None, step.job_id if step else None, utc_now())


def _out(worker: Worker, title: str | None, job_id: str | None, now: datetime) -> WorkerOut:
    age = max((now - worker.seen_at).total_seconds(), 0.0)
    return WorkerOut(
        **{name: getattr(worker, name) for name in SAME},
        online=age < ONLINE_S,
        age_seconds=round(age, 1),
        step=title,
        job_id=job_id,
        strangers=[StrangerOut(**stranger) for stranger in worker.strangers or ()],
        samples=worker.samples or [],
    )
