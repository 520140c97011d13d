"""Jobs: plan, create, list, read, cancel, pause, resume, try or run again, change."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from app import controls, jobs, planning, views
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Outdated
from app.models import Job, JobState, User, Visibility
from app.services import Services
from app.visibility import Chosen, of_a_copy
from engine.spec import JobSpec

router = APIRouter(tags=["jobs"])
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1, max_length=255, description="The same key and spec give the same job back, however often sent."
    ),
]


IfMatch = Annotated[
    str | None,
    Header(
        max_length=400,
        description="The ETag that you read: refused with 412 when name, priority, visibility or pin were changed since. "
        "That the job went on is no reason.",
    ),
]


class ListIn(BaseModel):
    """Which jobs to list."""

    model_config = ConfigDict(extra="forbid")

    state: list[JobState] = Field([], description="Only jobs in one of these states.")
    owner: str | None = Field(None, max_length=80, description="`me`, an id or a name.")
    q: str | None = Field(None, max_length=80, description="Text in the job's name.")
    dataset: str | None = Field(None, max_length=1024, description="The data set's name as jobs tell it, or its path.")
    method: str | None = Field(None, max_length=40, description="Name of the method.")
    visibility: Visibility | None = Field(None, description="Only private jobs, a team's, or everybody's.")
    after: views.Cursor | None = Field(None, description="`next_cursor` of the page before.")
    limit: int = Field(20, ge=1, le=100)

    def narrows(self) -> views.JobFilter:
        """What of it narrows the list."""
        return views.JobFilter(
            states=self.state,
            owner=self.owner,
            text=self.q,
            dataset=self.dataset,
            method=self.method,
            visibility=self.visibility,
        )


class ChangeIn(BaseModel):
    """What of a job may be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: planning.Name | None = Field(None, description="For people.")
    priority: int | None = Field(
        None,
        ge=controls.LEAST_PRIORITY,
        le=controls.GREATEST_PRIORITY,
        description="Which of its owner's jobs comes first: the greatest.",
    )
    pinned: bool | None = Field(None, description="Whether the store keeps all its steps, however old.")
    visibility: Chosen | None = Field(None, description="Who sees it besides its owner and administrators.")


@router.post("/jobs/plan", summary="What a job would do and cost; stores nothing")
def plan_job(wanted: planning.JobIn, request: Request, services: ServicesDep, user: UserDep) -> planning.PlanOut:
    planned = planning.prepare(services, user, wanted, request.app.state.facts)
    return planning.plan_out(services, planned, user)


@router.post("/jobs", status_code=201, summary="Create a job")
def create_job(
    wanted: planning.JobIn,
    response: Response,
    services: ServicesDep,
    user: WriterDep,
    idempotency_key: IdempotencyKey = None,
) -> views.JobOut:
    submitted = Submitted(planning.spec_of(wanted), wanted.name, wanted.visibility)
    return _submitted(response, services, user, submitted, idempotency_key)


@router.get("/jobs", summary="Jobs that you may see, newest first")
def list_jobs(
    request: Request, response: Response, services: ServicesDep, user: UserDep, wanted: Annotated[ListIn, Query()]
) -> views.JobPage:
    with services.database.read() as session:
        page = views.page_of_jobs(session, user, wanted.narrows(), after=wanted.after, limit=wanted.limit)
    if page.next_cursor:
        following = request.url.include_query_params(after=page.next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return page


@router.get("/jobs/{job_id}", summary="One job: how it stands, and its steps")
def get_job(
    job_id: str,
    response: Response,
    services: ServicesDep,
    user: UserDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> views.JobOut:
    found = _shown(services, user, job_id)
    etag = _etag(found)
    if if_none_match is not None and etag in if_none_match:
        return Response(status_code=304, headers={"ETag": etag})  # type: ignore[return-value]
    response.headers["ETag"] = etag
    return found


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job: at once when it waits, else its workers stop")
def cancel_job(job_id: str, services: ServicesDep, user: WriterDep) -> views.JobOut:
    with services.database.write() as session:
        controls.cancel(session, jobs.get(session, user, job_id), user)
    return _shown(services, user, job_id)


@router.post("/jobs/{job_id}/pause", summary="Pause a job: no step begins, and those that run leave a checkpoint")
def pause_job(job_id: str, services: ServicesDep, user: WriterDep) -> views.JobOut:
    with services.database.write() as session:
        controls.pause(session, jobs.get(session, user, job_id), user)
    return _shown(services, user, job_id)


@router.post("/jobs/{job_id}/resume", summary="Let a paused job go on from where it is")
def resume_job(job_id: str, services: ServicesDep, user: WriterDep) -> views.JobOut:
    with services.database.write() as session:
        controls.resume(session, jobs.get(session, user, job_id), user)
    services.bell.ring()  # after the commit
    return _shown(services, user, job_id)


@router.post(
    "/jobs/{job_id}/retry",
    summary="Try a failed or cancelled job again from the steps that are missing; whole ones stay",
)
def retry_job(job_id: str, services: ServicesDep, user: WriterDep) -> views.JobOut:
    controls.retry_now(services, user, job_id)
    return _shown(services, user, job_id)


@router.patch(
    "/jobs/{job_id}",
    summary="Another name, priority or visibility; only an administrator raises a priority above 0",
)
def change_job(
    wanted: ChangeIn,
    job_id: str,
    response: Response,
    services: ServicesDep,
    user: WriterDep,
    if_match: IfMatch = None,
) -> views.JobOut:
    with services.database.write() as session:
        job = jobs.lock(session, jobs.get(session, user, job_id).id)
        check_match(if_match, job)
        controls.change(session, job, user, **wanted.model_dump())
    found = _shown(services, user, job_id)
    response.headers["ETag"] = _etag(found)
    return found


@router.post(
    "/jobs/{job_id}/rerun", status_code=201, summary="A new job with the same spec; whole steps are not done again"
)
def rerun_job(
    job_id: str, response: Response, services: ServicesDep, user: WriterDep, idempotency_key: IdempotencyKey = None
) -> views.JobOut:
    old = _job(services, user, job_id)
    again = Submitted(jobs.spec_of(old), old.name, of_a_copy(user, old))
    return _submitted(response, services, user, again, idempotency_key)


@router.get(
    "/jobs/{job_id}/spec", response_model=dict[str, Any], summary="The exact spec of a job, to be sent again or edited"
)
def get_spec(
    job_id: str,
    services: ServicesDep,
    user: UserDep,
    format: Literal["json", "yaml"] = "json",  # noqa: A002
) -> Response:
    spec = _job(services, user, job_id).spec
    if format == "yaml":
        return Response(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), media_type="application/yaml")
    return JSONResponse(spec)


@router.get("/jobs/{job_id}/attempts", summary="Every try of every step: worker, device, outcome")
def list_attempts(job_id: str, services: ServicesDep, user: UserDep) -> list[views.AttemptOut]:
    with services.database.read() as session:
        return views.attempts(session, jobs.get(session, user, job_id))


class Submitted(NamedTuple):
    """A job to be made."""

    spec: JobSpec
    name: str | None
    visibility: str | None = None


def _submitted(
    response: Response, services: Services, user: User, wanted: Submitted, idempotency_key: str | None
) -> views.JobOut:
    job, is_new = planning.submit(services, user, wanted.spec, wanted.name, idempotency_key, wanted.visibility)
    response.headers["Location"] = views.urls(job.id)["self"]
    if not is_new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return _shown(services, user, job.id)


def _shown(services: Services, user: User, job_id: str) -> views.JobOut:
    with services.database.read() as session:
        return views.job_out(session, jobs.get(session, user, job_id))


def _job(services: Services, user: User, job_id: str) -> Job:
    with services.database.read() as session:
        return jobs.get(session, user, job_id)


def _etag(job: views.JobOut) -> str:
    """Changes with every event, with what people change of it (its last part), and with what a waiting job reads of the others."""
    around = hashlib.sha256(f"{job.sentence} {job.queue}".encode()).hexdigest()[:8]
    return f'"v{job.version}-{around}-{views.edition(job)}"'


def check_match(if_match: str | None, job: Job) -> None:
    """Raises Outdated when the job is no longer as whoever sends this ETag saw it. Only what can be changed counts."""
    tags = {tag.strip().strip('"').rpartition("-")[2] for tag in ("*" if if_match is None else if_match).split(",")}
    if not tags & {"*", views.edition(job)}:
        raise Outdated(f"{job.id} was changed since you read it.", hint="Read it again, and send its new ETag.")
