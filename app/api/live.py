"""What happens: events as lists and as streams."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import func, or_

from app import auth, jobs, views
from app.db import Database
from app.deps import IdentityDep, ServicesDep, UserDep
from app.errors import Unprocessable
from app.frames import hint_of
from app.models import MAX_SEQ, TERMINAL_JOB_STATES, Job, User, utc_now
from app.services import Services
from app.stream import EventStream, Hub
from app.watchers import Following
from engine.errors import ErrorReport

router = APIRouter(tags=["events"])
JUST_NOW = timedelta(minutes=2)  # what ended since then may still read as running on a page that was rendered before
MAX_JOBS = 50  # of one stream
Pings = Annotated[
    bool, Query(description="Send pings as events named `ping`, which scripts of a page see; else as comments.")
]
LastEventId = Annotated[str | None, Header(description="Sent by browsers that come again; wins over after_seq.")]
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Events, as they come."},
    204: {"description": "The job has ended and everything was sent: do not come again."},
}


@router.get("/jobs/{job_id}/events", summary="Events of a job past a number")
def list_events(
    job_id: str,
    services: ServicesDep,
    user: UserDep,
    after_seq: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    kinds: Annotated[str, Query(max_length=200, description="Only these, with commas between.")] = "",
) -> views.EventPage:
    with services.database.read() as session:
        job = jobs.get(session, user, job_id)
        return views.events(session, job, after_seq=after_seq, limit=limit, kinds=_listed(kinds))


@router.get(
    "/jobs/{job_id}/events/stream",
    response_class=Response,
    responses=STREAM,
    summary="Events of a job as they come (SSE)",
)
async def stream_events(
    job_id: str,
    request: Request,
    services: ServicesDep,
    identity: IdentityDep,
    after_seq: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    pings: Pings = False,
    last_event_id: LastEventId = None,
) -> Response:
    after = _numbers(last_event_id, 1) or [after_seq]
    return await _stream(request, services, identity, [job_id], after, pings=pings)


@router.get(
    "/stream", response_class=Response, responses=STREAM, summary="Several jobs in one stream (SSE), or hints of all"
)
async def stream_jobs(
    request: Request,
    services: ServicesDep,
    identity: IdentityDep,
    wanted: Annotated[
        str,
        Query(alias="jobs", max_length=4000, description="Ids, with commas between; without any, hints of all jobs."),
    ] = "",
    after_seq: Annotated[str, Query(max_length=1000, description="One number a job, with commas between.")] = "",
    pings: Pings = False,
    last_event_id: LastEventId = None,
) -> Response:
    ids = list(dict.fromkeys(_listed(wanted)))
    if not ids:
        return await _hints(request, services, identity, pings=pings)
    if len(ids) > MAX_JOBS:
        raise _bad_parameter("jobs", f"jobs names {len(ids)} jobs, and a stream carries at most {MAX_JOBS}.")
    after = _numbers(last_event_id, len(ids)) or _numbers(after_seq, len(ids)) or [0] * len(ids)
    return await _stream(request, services, identity, ids, after, pings=pings)


async def _stream(
    request: Request,
    services: Services,
    identity: auth.Identity,
    ids: Sequence[str],
    after: Sequence[int],
    *,
    pings: bool,
) -> Response:
    database = services.database
    found = await asyncio.to_thread(_following, database, identity.user, ids, after)
    if all(job.is_over for job in found):
        return Response(status_code=204)
    hub: Hub = request.app.state.hub
    is_good = partial(_is_good, database, identity, ids)
    return EventStream(hub, hub.follow(identity.user, found), is_good, pings=pings)


async def _hints(request: Request, services: Services, identity: auth.Identity, *, pings: bool) -> Response:
    hub: Hub = request.app.state.hub
    now = await asyncio.to_thread(_lately_changed, services.database, identity.user)
    is_good = partial(_is_good, services.database, identity, ())
    return EventStream(hub, hub.hint(identity.user, now), is_good, pings=pings)


def _following(database: Database, user: User, ids: Sequence[str], after: Sequence[int]) -> list[Following]:
    with database.read() as session:
        found = [jobs.get(session, user, id_) for id_ in ids]
    return [Following(job.id, job.state, job.last_seq, known) for job, known in zip(found, after, strict=True)]


def _lately_changed(database: Database, user: User) -> list[dict[str, Any]]:
    changing = or_(Job.state.not_in(TERMINAL_JOB_STATES), Job.finished_at > utc_now() - JUST_NOW)
    with database.read() as session:
        return [hint_of(job) for job in session.scalars(jobs.visible_to(user).where(changing).order_by(Job.id))]


def _is_good(database: Database, identity: auth.Identity, ids: Sequence[str]) -> bool:
    """Whether they may still come in, and still see these jobs."""
    seen = jobs.visible_to(identity.user).where(Job.id.in_(ids)).with_only_columns(func.count())
    with database.read() as session:
        return auth.still_good(session, identity) and session.scalar(seen) == len(ids)


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _numbers(text: str | None, count: int) -> list[int] | None:
    """`12,40`; None when there are none, or when they are of another stream."""
    parts = _listed(text or "")
    if len(parts) != count or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        return None
    return [int(part) for part in parts]


def _bad_parameter(name: str, message: str) -> Unprocessable:
    return Unprocessable(message, errors=[ErrorReport(code="invalid", message=message, details={"parameter": name})])
