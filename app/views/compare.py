"""Several jobs side by side: what differs between their specs, their score cards, curves and images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Job, Preview, Step
from app.views.curves import PreviewOut, preview_out
from app.views.jobs import JobSummary, summaries
from app.views.out import Out
from app.views.points import Point, points_of
from app.views.results import RowOut, row_out
from engine.plan import Row, StepKind

MAX_JOBS = 8
CURVES = {  # metric -> title; of the first step of its kind that has points, but accuracies of students are means
    "recover.loss": "Recover: total loss",
    "recover.loss_ce": "Recover: cross-entropy",
    "recover.loss_bn": "Recover: batch norm, unweighted",
    "recover.entropy": "Recover: information density, bits",
    "teach.loss": "Teacher: training loss",
    "teach.top1": "Teacher: accuracy on the test set, %",
    "evaluate.top1": "Students on the distilled images: accuracy, %",
}
JUDGED = "evaluate.top1"


class DifferenceOut(Out):
    """A field of the spec that is not the same in all jobs."""

    pointer: str = Field(description="JSON pointer into the spec.")
    values: list[Any] = Field(description="One a job, in the order of the jobs; null where a job has no such field.")


class ScoresOut(Out):
    """One line of the score cards, side by side."""

    subject: str
    title: str
    student: str
    labels: str
    ipc: int | None = Field(description="Images per class; null: each job's own, where these differ.")
    rows: list[RowOut | None] = Field(description="One a job; null where a job has no such line.")


class ComparedCurveOut(Out):
    """One curve, side by side."""

    name: str
    title: str
    series: list[list[Point]] = Field(description="Points [x, value] of each job; empty where a job has none.")


class CompareOut(Out):
    """Jobs side by side, in the order in which they were named."""

    jobs: list[JobSummary]
    differences: list[DifferenceOut] = Field(description="Fields of the specs that differ, and no others.")
    scores: list[ScoresOut]
    curves: list[ComparedCurveOut]
    sheets: list[list[PreviewOut]] = Field(description="Of each job, the contact sheets of its first recovery.")


def compare(session: Session, jobs: Sequence[Job], *, max_points: int = 400) -> CompareOut:
    """Everything that two to MAX_JOBS jobs can be compared by, at most `max_points` points a curve."""
    steps: dict[str, list[Step]] = {job.id: [] for job in jobs}
    query = select(Step).where(Step.job_id.in_(steps)).order_by(Step.job_id, Step.position)
    for step in session.scalars(query):
        steps[step.job_id].append(step)
    alike = len({job.spec["ipc"] for job in jobs}) == 1
    rows = [_rows(job, steps[job.id], job.spec["ipc"] if alike else None) for job in jobs]
    return CompareOut(
        jobs=summaries(session, jobs),
        differences=list(differences([job.spec for job in jobs])),
        scores=list(_scores(rows)),
        curves=list(_curves(session, [steps[job.id] for job in jobs], rows, max_points)),
        sheets=_sheets(session, [steps[job.id] for job in jobs]),
    )


def differences(specs: Sequence[Any]) -> Iterator[DifferenceOut]:
    """What is not the same in all of these, in the order in which it stands there."""
    found = [dict(leaves(spec)) for spec in specs]
    for pointer in dict.fromkeys(pointer for leaf in found for pointer in leaf):
        values = [leaf.get(pointer) for leaf in found]
        if any(value != values[0] or type(value) is not type(values[0]) for value in values):
            yield DifferenceOut(pointer=pointer, values=values)


def leaves(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value by its pointer; a list of plain values is one."""
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        inner = list(enumerate(value))
    if not inner:
        yield pointer, value
    for name, one in inner:
        yield from leaves(one, f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}")


Line = tuple[str, str, str, int | None]  # subject, student, labels, ipc


def _rows(job: Job, steps: Sequence[Step], own: int | None) -> dict[Line, RowOut]:
    """The lines of a score card. own: what the job's own ipc is called, so that lines of jobs with others meet."""
    by_key = {step.key: step for step in steps}
    found = [row_out(Row.model_validate(row), by_key) for row in job.rows]
    ipcs = [own if row.ipc == job.spec["ipc"] else row.ipc for row in found]
    return {(row.subject, row.student, row.labels, ipc): row for row, ipc in zip(found, ipcs, strict=True)}


def _scores(rows: Sequence[Mapping[Line, RowOut]]) -> Iterator[ScoresOut]:
    for line in dict.fromkeys(line for card in rows for line in card):
        of_line = [card.get(line) for card in rows]
        title = next(row.title for row in of_line if row)
        subject, student, labels, ipc = line
        yield ScoresOut(subject=subject, title=title, student=student, labels=labels, ipc=ipc, rows=of_line)


def _curves(
    session: Session, steps: Sequence[Sequence[Step]], rows: Sequence[Mapping[Line, RowOut]], max_points: int
) -> Iterator[ComparedCurveOut]:
    reached = [[step for step in own if step.attempts] for own in steps]
    judged = [_judged(card) for card in rows]
    keys = {step.key for own in reached for step in own if step.kind in (StepKind.RECOVER, StepKind.TEACH)}
    keys |= {key for own, found in zip(reached, judged, strict=True) for key in found & {step.key for step in own}}
    points = points_of(session, keys, list(CURVES), max_points)
    for name, title in CURVES.items():
        if name == JUDGED:
            series = [_mean([points[key].get(name, []) for key in sorted(found & keys)]) for found in judged]
        else:
            series = [_first(own, points, name) for own in reached]
        if any(series):
            yield ComparedCurveOut(name=name, title=title, series=series)


def _judged(rows: Mapping[Line, RowOut]) -> set[str]:
    """Keys of the runs of the first line of a card that judges the distilled images."""
    first = next((row for row in rows.values() if row.subject == "distilled"), None)
    return {run.key for run in first.runs} if first else set()


def _first(steps: Sequence[Step], points: Mapping[str, Mapping[str, list[Point]]], name: str) -> list[Point]:
    found = (points[step.key][name] for step in steps if step.key in points and name in points[step.key])
    return next(found, [])


def _mean(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """At each x, the mean over the runs that have come so far."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        for x, value in run:
            values[x].append(value)
    return [(x, fmean(found)) for x, found in sorted(values.items())]


def _sheets(session: Session, steps: Sequence[Sequence[Step]]) -> list[list[PreviewOut]]:
    """Of each job: the sheets of the first step of recovery that it has come to."""
    firsts = [next((step.key for step in own if step.kind == StepKind.RECOVER and step.attempts), "") for own in steps]
    found: defaultdict[str, list[PreviewOut]] = defaultdict(list)
    query = select(Preview).where(Preview.step_key.in_(set(firsts) - {""})).order_by(Preview.step_key, Preview.x)
    for row in session.scalars(query):
        found[row.step_key].append(preview_out(row.x, row.sha256, row.data))
    return [found[key] if key else [] for key in firsts]
