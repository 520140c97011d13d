"""How a sweep reads: its jobs as cells, with what their students reached, and as one table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import fmean, stdev
from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session, load_only

from app import sweeps
from app.cells import Axis
from app.models import TERMINAL_JOB_STATES, Job, JobState, Step, Sweep, User
from app.results.figures import PaperOut, difference
from app.results.rows import ghost
from app.results.suites import RUNS, Run, run_like
from app.views.jobs import JobError, OwnerOut, progress
from app.views.out import Out
from app.views.results import RowOut, row_out
from engine.plan import Row
from engine.scores import SUBJECT_TITLES
from engine.spec import sha256_of


class AxisOut(Out):
    """What varies."""

    name: str
    path: str | None = Field(description="JSON pointer into the spec; null where several fields change together.")
    titles: list[str] = Field(description="What stands there in turn.")
    numbers: list[float] | None = Field(description="The same as numbers, where all of them are.")


class SweepSummary(Out):
    """A sweep in a list."""

    id: str
    name: str
    owner: OwnerOut
    state: str = Field(
        description="queued, running, paused, or once all jobs have ended: failed, cancelled, succeeded."
    )
    jobs: dict[str, int] = Field(description="How many are in each state.")
    ended: int
    total: int
    visibility: str = Field("private", description="Who sees it and its jobs besides its owner: private, team or all.")
    axes: list[AxisOut]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]


class CellScore(Out):
    """What students of one kind reached on one subject of one job: top-1 on the real test set, %."""

    subject: str
    title: str
    student: str
    labels: str
    n: int = Field(description="Runs that are done.")
    planned: int
    mean: float | None = Field(description="After the last epoch.")
    std: float | None = Field(description="Sample standard deviation; null below two runs.")
    best_mean: float | None = Field(description="Of the best epoch of each run: chosen on the test set.")
    best_std: float | None
    is_best: bool = Field(
        False, description="The highest mean of the sweep at this data set and ipc, if not all equal."
    )
    paper: PaperOut | None = Field(None, description="What a paper reports for this setting, or the nearest it has.")
    difference: float | None = Field(None, description="Points above the paper, where it is of the same setting.")


class CellOut(Out):
    """One job of the sweep."""

    job_id: str
    name: str
    at: list[int] = Field(description="Its place on each axis.")
    values: dict[str, str] = Field(description="Axis -> title of its value.")
    state: str
    progress: float = Field(ge=0, le=1)
    error: JobError | None
    scores: list[CellScore]
    url: str


class SweepOut(SweepSummary):
    """A sweep with all of its cells."""

    suite: str | None = Field(None, description="Name of the suite that it is part of: see `fadrm results list`.")
    spec: dict[str, Any] = Field(description="The base, before the axes changed it.")
    progress: float = Field(ge=0, le=1)
    students: list[str]
    labels: list[str]
    subjects: list[str]
    cells: list[CellOut]


class SweepPage(Out):
    """Some sweeps, newest first."""

    data: list[SweepSummary]
    has_more: bool
    next_cursor: str | None


class TableOut(Out):
    """A sweep as a table: a row a job."""

    student: str = Field(description="Empty: of each job the first student that it names.")
    labels: str
    columns: list[str]
    rows: list[list[str | float | int | None]]


def page_of_sweeps(session: Session, user: User, *, after: str | None = None, limit: int = 20) -> SweepPage:
    """Sweeps that the user may see, newest first. after: the id that the last page ended with."""
    query = sweeps.visible_to(user).order_by(Sweep.id.desc()).limit(limit + 1)
    found = list(session.scalars(query.where(Sweep.id < after) if after else query))
    shown, has_more = found[:limit], len(found) > limit
    return SweepPage(data=_summaries(session, shown), has_more=has_more, next_cursor=shown[-1].id if has_more else None)


def sweep_out(session: Session, sweep: Sweep) -> SweepOut:
    """One sweep with all there is to say of it."""
    [summary] = _summaries(session, [sweep])
    steps = _steps(session, sweep)
    axes, made = sweeps.axes_of(sweep), sweeps.jobs_of(session, sweep)
    run = run_like(sweep.name, {axis.name: axis.titles for axis in axes})
    cells = _with_best([_cell(job, axes, steps[job.id], run) for job in made], made)
    scores = [score for cell in cells for score in cell.scores]
    return SweepOut(
        **dict(summary),
        suite=RUNS[run.name][0].name if run else None,
        spec=sweep.spec,
        progress=round(fmean(cell.progress for cell in cells), 4),
        students=list(dict.fromkeys(score.student for score in scores)),
        labels=list(dict.fromkeys(score.labels for score in scores)),
        subjects=list(dict.fromkeys(score.subject for score in scores)),
        cells=cells,
    )


def _summaries(session: Session, found: Sequence[Sweep]) -> list[SweepSummary]:
    ids = [sweep.id for sweep in found]
    query = select(Job.sweep_id, Job.state, func.count(), func.min(Job.started_at), func.max(Job.finished_at))
    by_state: dict[str | None, list[ByState]] = defaultdict(list)
    of_these = query.where(Job.sweep_id.in_(ids)).group_by(Job.sweep_id, Job.state)
    for sweep_id, state, jobs, started_at, finished_at in session.execute(of_these):
        by_state[sweep_id].append(ByState(state, jobs, started_at, finished_at))
    owners = {
        user.id: user for user in session.scalars(select(User).where(User.id.in_({one.owner_id for one in found})))
    }
    return [_summary(sweep, owners[sweep.owner_id], by_state[sweep.id]) for sweep in found]


class ByState(NamedTuple):
    """The jobs of a sweep that are in one state."""

    state: str
    jobs: int
    started_at: datetime | None  # of the first that began
    finished_at: datetime | None  # of the last that ended


def _summary(sweep: Sweep, owner: User, found: Sequence[ByState]) -> SweepSummary:
    counts = {one.state: one.jobs for one in found}
    state = sweep_state(counts)
    begun = [one.started_at for one in found if one.started_at is not None]
    ended = [one.finished_at for one in found if one.finished_at is not None]
    return SweepSummary(
        id=sweep.id,
        name=sweep.name,
        owner=OwnerOut(id=owner.id, name=owner.name),
        state=state,
        jobs={name: counts[name] for name in JobState if name in counts},
        ended=sum(count for name, count in counts.items() if name in TERMINAL_JOB_STATES),
        total=sum(counts.values()),
        axes=[
            AxisOut(name=axis.name, path=axis.path, titles=axis.titles, numbers=axis.numbers)
            for axis in sweeps.axes_of(sweep)
        ],
        visibility=sweep.visibility,
        created_at=sweep.created_at,
        started_at=min(begun, default=None),
        finished_at=max(ended, default=None) if state in TERMINAL_JOB_STATES else None,
        urls=sweep_urls(sweep.id),
    )


def sweep_state(counts: Mapping[str, int]) -> JobState:
    """One word for many jobs: what moves first, then the worst news."""
    if not counts.keys() <= TERMINAL_JOB_STATES:
        alike = next(iter(counts)) if len(counts) == 1 else ""
        return JobState(alike) if alike in {JobState.QUEUED, JobState.PAUSED} else JobState.RUNNING
    return next(state for state in (JobState.FAILED, JobState.CANCELLED, JobState.SUCCEEDED) if state in counts)


def sweep_urls(sweep_id: str) -> dict[str, str]:
    """Where the parts of a sweep are."""
    base = f"/api/v1/sweeps/{sweep_id}"
    return {
        "self": base,
        "cancel": f"{base}/cancel",
        "retry": f"{base}/retry",
        "table": f"{base}/table",
        "web": f"/sweeps/{sweep_id}",
    }


def _steps(session: Session, sweep: Sweep) -> dict[str, list[Step]]:
    """Job -> its steps, with what progress and scores are read from."""
    shown = load_only(
        Step.job_id, Step.key, Step.state, Step.cached, Step.flop, Step.done, Step.total, Step.result, Step.seconds
    )
    found: dict[str, list[Step]] = defaultdict(list)
    query = select(Step).join(Job, Job.id == Step.job_id).where(Job.sweep_id == sweep.id).order_by(Step.position)
    for step in session.scalars(query.options(shown)):
        found[step.job_id].append(step)
    return found


def _cell(job: Job, axes: tuple[Axis, ...], steps: Sequence[Step], run: Run | None) -> CellOut:
    by_key = {step.key: step for step in steps}
    values = sweeps.values_of(axes, job)
    rows = [row_out(Row.model_validate(row), by_key) for row in job.rows if row["ipc"] == job.spec["ipc"]]
    return CellOut(
        job_id=job.id,
        name=job.name,
        at=job.cell or [],
        values=values,
        state=job.state,
        progress=progress(job, steps),
        error=JobError.model_validate(job.error) if job.error else None,
        scores=[_score(row, ghost(run, values, job.spec, row.subject, row.student, row.labels)) for row in rows],
        url=f"/api/v1/jobs/{job.id}",
    )


def _score(row: RowOut, paper: PaperOut | None) -> CellScore:
    kept = CellScore.model_fields.keys() & RowOut.model_fields.keys()
    return CellScore(
        **{name: getattr(row, name) for name in kept},
        best_std=stdev(row.best) if len(row.best) > 1 else None,
        paper=paper,
        difference=difference(row.mean, paper),
    )


def _with_best(cells: Sequence[CellOut], made: Sequence[Job]) -> list[CellOut]:
    """The same, with the best of each student marked among the jobs of equal data set and ipc."""
    groups: dict[Any, list[float]] = defaultdict(list)
    places = [(sha256_of(job.spec["dataset"]), job.spec["ipc"]) for job in made]
    for cell, place in zip(cells, places, strict=True):
        for score in cell.scores:
            if score.mean is not None:
                groups[(place, *_kind(score))].append(score.mean)
    best = {of: max(means) for of, means in groups.items() if len(set(means)) > 1}

    def marked(score: CellScore, place: tuple[str, int]) -> CellScore:
        is_best = score.mean is not None and score.mean == best.get((place, *_kind(score)))
        return score.model_copy(update={"is_best": is_best})

    return [
        cell.model_copy(update={"scores": [marked(score, place) for score in cell.scores]})
        for cell, place in zip(cells, places, strict=True)
    ]


def _kind(score: CellScore) -> tuple[str, str, str]:
    return score.subject, score.student, score.labels


def chosen(cell: CellOut, student: str, labels: str) -> dict[str, CellScore]:
    """Subject -> score of a cell by one student. student: empty for the first that the job names."""
    asked = student or next((score.student for score in cell.scores), "")
    return {score.subject: score for score in cell.scores if (score.student, score.labels) == (asked, labels)}


def table(sweep: SweepOut, student: str = "", labels: str = "") -> TableOut:
    """A row a job: axes, then for each subject mean and spread of the last epoch, the best epoch, runs, and the paper.

    A paper's columns are there where it reports anything.
    """
    labels = labels or next(iter(sweep.labels), "")
    reported = with_paper(sweep)
    columns = ["job", "state", *(axis.name for axis in sweep.axes)]
    for subject in sweep.subjects:
        title = SUBJECT_TITLES.get(subject, subject)
        columns += [f"{title}, last epoch %", f"{title}, spread", f"{title}, best epoch %", f"{title}, runs"]
        columns += [f"{title}, paper %", f"{title}, difference"] if subject in reported else []
    rows: list[list[str | float | int | None]] = []
    for cell in sweep.cells:
        scores = chosen(cell, student, labels)
        row: list[str | float | int | None] = [cell.job_id, cell.state, *cell.values.values()]
        for subject in sweep.subjects:
            score = scores.get(subject)
            row += [score.mean, score.std, score.best_mean, score.n] if score else [None] * 4
            if subject in reported:
                row += [score.paper.top1_pct if score.paper else None, score.difference] if score else [None] * 2
        rows.append(row)
    return TableOut(student=student, labels=labels, columns=columns, rows=rows)


def with_paper(sweep: SweepOut) -> set[str]:
    """The subjects beside which some paper has a figure."""
    return {score.subject for cell in sweep.cells for score in cell.scores if score.paper is not None}


def tally(counts: Mapping[str, int]) -> str:
    """`3 of 10 jobs have ended: 2 succeeded, 1 failed; 1 running, 6 queued.`"""
    ended = Counter({state: count for state, count in counts.items() if state in TERMINAL_JOB_STATES})
    left = {state: count for state, count in counts.items() if state not in TERMINAL_JOB_STATES}
    total = sum(counts.values())
    told = f"{ended.total()} of {total} {'job has' if total == 1 else 'jobs have'} ended"
    parts = [", ".join(f"{count} {state}" for state, count in part.items()) for part in (ended, left) if part]
    return f"{told}: {'; '.join(parts)}."
