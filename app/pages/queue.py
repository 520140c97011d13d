"""What runs, what waits, in which order, why, and until about when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import controls, jobs, views
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unprocessable
from app.line import latest
from app.models import Job, Step, StepState, User, Worker
from app.pages.new import PostedDep
from app.pages.render import page
from app.views.jobs import JobSummary
from app.views.sentences import DOING
from app.views.stages import fraction
from engine.plan import StepKind

SHOWN = 100  # jobs in line that one page names


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A worker and the step that it is at. job: None when it is somebody else's."""

    worker: str
    device: str
    title: str  # of its step, which names the images and the networks; of somebody else's only what kind it is
    job: Job | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A place in line. job: None when it is somebody else's."""

    number: int
    job: JobSummary | None
    up: int | None  # the priority that is one higher, where one may ask for it
    down: int | None


def router() -> APIRouter:
    """/queue."""
    routes = APIRouter(prefix="/queue")

    @routes.get("")
    def queue_page(request: Request, services: ServicesDep, user: UserDep, part: bool = False) -> HTMLResponse:
        with services.database.read() as session:
            context = _context(session, user)
        return page(request, "queue_parts.html" if part else "queue.html", **context)

    @routes.post("/{job_id}/rank")
    def rank(services: ServicesDep, user: WriterDep, job_id: str, posted: PostedDep) -> Response:
        with services.database.write() as session:
            job = jobs.get(session, user, job_id)
            controls.change(session, job, user, priority=_priority(posted.get("priority", [""])[-1]))
        return RedirectResponse("/queue", 303)

    return routes


def _priority(text: str) -> int:
    known = {str(one): one for one in range(controls.LEAST_PRIORITY, controls.GREATEST_PRIORITY + 1)}
    if text not in known:
        raise Unprocessable(f"{text[:20]!r} is no priority.", hint=f"Choose one of {', '.join(known)}.")
    return known[text]


def _context(session: Session, user: User) -> dict[str, Any]:
    waiting = latest(session).waiting
    shown = waiting[:SHOWN]
    seen = session.scalars(jobs.visible_to(user).where(Job.id.in_([member.id for member in shown])))
    summaries = {job.id: job for job in views.summaries(session, list(seen))}
    return {
        "lanes": list(_lanes(session, user)),
        "places": [_place(number, summaries.get(one.id), user) for number, one in enumerate(shown, start=1)],
        "more": len(waiting) - len(shown),
        "paused": _paused(session, user),
    }


def _lanes(session: Session, user: User) -> Any:
    """Every step that runs, by worker."""
    running = (
        select(Step, Job, Worker.device, Worker.device_name)
        .join(Job, Job.id == Step.job_id)
        .outerjoin(Worker, Worker.id == Step.worker)
        .where(Step.state == StepState.RUNNING)
    )
    found = session.execute(running.order_by(Step.worker, Step.id)).all()
    theirs = {job.id for _, job, _, _ in found}
    seen = set(session.scalars(jobs.visible_to(user).with_only_columns(Job.id).where(Job.id.in_(theirs))))
    for step, job, device, name in found:
        is_seen = job.id in seen
        yield Lane(
            worker=step.worker or "",
            device=name or device or "",
            title=step.title if is_seen else DOING[StepKind(step.kind)].lower(),
            job=job if is_seen else None,
            share=fraction(step),
        )


def _place(number: int, job: JobSummary | None, user: User) -> Place:
    up = down = None
    if job is not None and (user.role == "admin" or (user.role == "member" and job.owner.id == user.id)):
        most = controls.GREATEST_PRIORITY if user.role == "admin" else max(0, job.priority)
        up = job.priority + 1 if job.priority < most else None
        down = job.priority - 1 if job.priority > controls.LEAST_PRIORITY else None
    return Place(number=number, job=job, up=up, down=down)


def _paused(session: Session, user: User) -> list[Job]:
    """Jobs that rest because somebody said so: they are in no line."""
    query = jobs.visible_to(user).where(Job.state == "paused").order_by(Job.id.desc()).limit(SHOWN)
    return list(session.scalars(query))
