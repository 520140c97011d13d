"""How a job reads: for the API and for the pages alike. Every figure is taken from rows; nothing here changes one."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, defer

from app import sent
from app.jobs import visible_to
from app.models import TERMINAL_JOB_STATES, Job, JobState, Step, Upload, User, utc_now
from app.views.out import Out
from app.views.sentences import Surroundings, sentence, surroundings
from app.views.stages import StageOut, fraction, stages

LEAST_SHARE = 0.01  # of a job's work, shared among its steps, so that steps without arithmetic move the bar too
ENOUGH_FOR_ETA = 0.05
DATASET = func.coalesce(*(Job.spec["dataset"][name].as_string() for name in ("path", "name", "source")))


def cursor_of(prefix: str) -> AfterValidator:
    """For what follows `after=` in a list of things whose ids begin so."""

    def check(text: str) -> str:
        if text and not re.fullmatch(rf"{prefix}_[0-9a-f]{{28}}", text, re.ASCII):
            raise ValueError(f"{text!r} is no cursor: give the next_cursor of the page before")
        return text

    return AfterValidator(check)


Cursor = Annotated[str, Field(max_length=40), cursor_of("job")]
SweepCursor = Annotated[str, Field(max_length=40), cursor_of("swp")]
AuditCursor = Annotated[str, Field(max_length=40), cursor_of("aud")]


class OwnerOut(Out):
    """Who submitted a job."""

    id: str
    name: str


class JobError(Out):
    """Why a job or a step failed."""

    code: str
    message: str
    hint: str = ""
    pointer: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    step: str = Field("", description="Title of the step that failed.")
    kind: str = Field("", description="Its kind.")


class StepOut(Out):
    """One step of a job."""

    position: int
    key: str = Field(description="Hash of what the step is made from: equal steps of any two jobs have equal keys.")
    kind: str
    title: str
    state: str
    cached: bool = Field(description="Found whole, made by an earlier job.")
    progress: float = Field(ge=0, le=1)
    done: int
    total: int
    unit: str
    attempts: int
    worker: str | None
    seconds: float | None = Field(description="Time that its computing took.")
    flop: float
    size_bytes: int
    result: dict[str, Any] | None
    error: JobError | None
    started_at: datetime | None
    finished_at: datetime | None


class QueueOut(Out):
    """Where a waiting job stands."""

    position: int | None = Field(description="1 is next; null when the job does not wait in line.")
    ahead: int
    starts_in_minutes: int | None = Field(
        None, description="About; null when the job does not wait, or nobody can know."
    )


class JobSummary(Out):
    """A job in a list."""

    id: str
    name: str
    owner: OwnerOut
    state: str
    sentence: str = Field(description="What the job is doing, or why it waits, in words.")
    progress: float = Field(ge=0, le=1, description="Share of the work that is done, weighed by arithmetic.")
    eta_seconds: float | None = Field(description="Rough time left, from the time taken so far.")
    stages: list[StageOut]
    dataset: str
    dataset_title: str = Field("", description="As people know it: of an upload its title.")
    method: str
    ipc: int
    teachers: list[str]
    sweep_id: str | None = Field(None, description="The sweep that made it.")
    visibility: str = Field("private", description="Who sees it besides its owner: private, team or all.")
    cancel_requested: bool
    paused_by: str | None = Field(None, description="Who paused it; while steps still run, it is on the way there.")
    pinned_by: str | None = Field(None, description="Who wants the store to keep all its steps.")
    priority: int = Field(0, description="-2 to 2: which of its owner's jobs comes first.")
    error: JobError | None
    queue: QueueOut
    version: int = Field(description="Raised by every event of the job: `last_seq` of its events.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]


class JobOut(JobSummary):
    """A job with its steps."""

    steps: list[StepOut]
    seed: int
    spec_sha256: str


class JobPage(Out):
    """A page of a list of jobs, newest first."""

    data: list[JobSummary]
    has_more: bool
    next_cursor: str | None


def job_out(session: Session, job: Job) -> JobOut:
    """One job with all there is to say of it."""
    [(summary, steps)] = _summaries(session, [job])
    return JobOut(
        **dict(summary),
        steps=[step_out(step) for step in steps],
        seed=job.spec.get("seed", 0),
        spec_sha256=job.spec_sha256,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFilter:
    """Which jobs a list shows; what is empty narrows nothing."""

    states: Sequence[str] = ()
    owner: str | None = None  # `me`, an id or a name
    text: str | None = None  # in the name
    dataset: str | None = None  # as `dataset_name` tells it, or a path
    method: str | None = None
    visibility: str | None = None

    def of(self, query: Select[Job], user: User) -> Select[Job]:
        """The query, narrowed."""
        if self.states:
            query = query.where(Job.state.in_(self.states))
        if self.owner:
            named = user.id if self.owner == "me" else self.owner
            query = query.join(User, User.id == Job.owner_id).where((User.id == named) | (User.name == named))
        if self.text:
            query = query.where(Job.name.icontains(self.text, autoescape=True))
        if self.dataset:
            query = query.where(DATASET.in_([self.dataset]) | DATASET.endswith(f"/{self.dataset}", autoescape=True))
        if self.method:
            query = query.where(Job.spec["method"]["method"].as_string() == self.method)
        if self.visibility:
            query = query.where(Job.visibility == self.visibility)
        return query


def page_of_jobs(
    session: Session, user: User, wanted: JobFilter | None = None, *, after: str | None = None, limit: int = 20
) -> JobPage:
    """Jobs that the user may see, newest first. after: the id that the last page ended with."""
    query = (wanted or JobFilter()).of(visible_to(user), user)
    if after:
        query = query.where(Job.id < after)
    found = list(session.scalars(query.order_by(Job.id.desc()).limit(limit + 1)))
    shown = found[:limit]
    has_more = len(found) > limit
    return JobPage(data=summaries(session, shown), has_more=has_more, next_cursor=shown[-1].id if has_more else None)


def dataset_names(session: Session, user: User) -> list[str]:
    """The data sets of the newest 500 jobs that the user may see."""
    newest = visible_to(user).with_only_columns(DATASET.label("name")).order_by(Job.id.desc()).limit(500).subquery()
    return sorted({_short(name) for name in session.scalars(select(newest.c.name).distinct())})


def summaries(session: Session, jobs: Sequence[Job]) -> list[JobSummary]:
    """Jobs as they read in a list: a fixed number of queries, however many jobs."""
    return [summary for summary, _ in _summaries(session, jobs)]


def _summaries(session: Session, jobs: Sequence[Job]) -> list[tuple[JobSummary, list[Step]]]:
    ids = [job.id for job in jobs]
    steps: dict[str, list[Step]] = defaultdict(list)
    query = select(Step).where(Step.job_id.in_(ids)).order_by(Step.job_id, Step.position)
    for step in session.scalars(query.options(defer(Step.params), defer(Step.needs))):
        steps[step.job_id].append(step)
    owners = {
        user.id: user for user in session.scalars(select(User).where(User.id.in_({job.owner_id for job in jobs})))
    }
    around = surroundings(session, [step for job in jobs for step in steps[job.id]])
    titles = _upload_titles(session, jobs, owners)
    return [
        (_summary(job, steps[job.id], owners[job.owner_id], around, titles.get(job.id)), steps[job.id]) for job in jobs
    ]


def _upload_titles(session: Session, jobs: Sequence[Job], owners: Mapping[str, User]) -> dict[str, str]:
    """Job -> title of the upload that it distils, as the job's owner knows it, where that still sees it."""
    uploads = {job.id: job.spec["dataset"]["id"] for job in jobs if job.spec["dataset"]["source"] == "upload"}
    found: dict[str, str] = {}
    for owner_id in {job.owner_id for job in jobs if job.id in uploads}:
        theirs = {job.id: uploads[job.id] for job in jobs if job.id in uploads and job.owner_id == owner_id}
        rows = session.scalars(select(Upload).where(Upload.id.in_(set(theirs.values())))).all()
        labels = sent.labels_of(session, owners[owner_id], rows)
        found |= {job_id: labels[upload_id].title for job_id, upload_id in theirs.items() if upload_id in labels}
    return found


def _summary(
    job: Job, steps: Sequence[Step], owner: User, around: Surroundings, upload_title: str | None
) -> JobSummary:
    done = progress(job, steps)
    ahead = around.line.ahead(job.id)
    return JobSummary(
        id=job.id,
        name=job.name,
        owner=OwnerOut(id=owner.id, name=owner.name),
        state=job.state,
        sentence=sentence(job, steps, around),
        progress=done,
        eta_seconds=_eta_seconds(job, done),
        stages=stages(steps),
        dataset=dataset_name(job.spec),
        dataset_title=upload_title or dataset_name(job.spec),
        method=job.spec["method"]["method"],
        ipc=job.spec["ipc"],
        teachers=[teacher["network"] for teacher in job.spec["teachers"]],
        sweep_id=job.sweep_id,
        visibility=job.visibility,
        cancel_requested=job.cancel_requested,
        paused_by=job.paused_by,
        pinned_by=job.pinned_by,
        priority=job.priority,
        error=JobError.model_validate(job.error) if job.error else None,
        queue=QueueOut(
            position=None if ahead is None else ahead + 1, ahead=ahead or 0, starts_in_minutes=around.starts_in_min(job)
        ),
        version=job.last_seq,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        urls=urls(job.id),
    )


def edition(job: Job | JobSummary) -> str:
    """Changes when somebody changes what can be changed of a job, and not when it goes on."""
    told = f"{job.name}\0{job.priority}\0{job.visibility}\0{job.pinned_by}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def urls(job_id: str) -> dict[str, str]:
    """Where the parts of a job are."""
    base = f"/api/v1/jobs/{job_id}"
    return {
        "self": base,
        **{action: f"{base}/{action}" for action in ("cancel", "pause", "resume", "retry")},
        "events": f"{base}/events",
        "stream": f"{base}/events/stream",
        "metrics": f"{base}/metrics",
        "previews": f"{base}/previews",
        "results": f"{base}/results",
        "artifacts": f"{base}/artifacts",
        "log": f"{base}/log",
        "web": f"/jobs/{job_id}",
    }


def dataset_name(spec: dict[str, Any]) -> str:
    """`digits`, `cifar10`, `owner/name` of the Hub, or a folder's last part."""
    dataset = spec["dataset"]
    return _short(str(dataset.get("path", dataset.get("name", dataset["source"]))))


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name


def step_out(step: Step) -> StepOut:
    """One step."""
    shown = {name: getattr(step, name) for name in StepOut.model_fields if name not in {"progress", "error"}}
    error = JobError.model_validate(step.error) if step.error else None
    return StepOut(**shown, progress=fraction(step), error=error)


def progress(job: Job, steps: Sequence[Step]) -> float:
    """Share of a job's arithmetic that is done; what was found in the store does not count, for it took no time."""
    if job.state == JobState.SUCCEEDED:
        return 1.0
    own = [step for step in steps if not step.cached]
    least = max(sum(step.flop for step in own), 1.0) * LEAST_SHARE / max(len(own), 1)
    whole = sum(step.flop + least for step in own)
    done = sum((step.flop + least) * fraction(step) for step in own)
    return round(done / whole, 4) if whole else 1.0


def _eta_seconds(job: Job, done: float) -> float | None:
    resting = job.state in TERMINAL_JOB_STATES or job.paused_by is not None
    if job.started_at is None or resting or done < ENOUGH_FOR_ETA:
        return None
    return round((utc_now() - job.started_at).total_seconds() * (1 - done) / done, 1)
