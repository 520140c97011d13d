"""Curves and contact sheets of a job's steps, small enough to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs import steps_of
from app.models import Job, Mark, Metric, Preview, Step
from app.views.out import Out

Point = tuple[int, float]


class MarkOut(Out):
    """A residual injection: after iteration x the source patches were mixed into the images."""

    x: int
    alpha: float
    size_from: int = Field(description="px")
    size_to: int = Field(description="px")


class CurvesOut(Out):
    """The curves of one step."""

    key: str
    kind: str
    title: str
    state: str
    unit: str = Field(description="What x counts: iterations, epochs.")
    total: int
    series: dict[str, list[Point]] = Field(description="Name -> points [x, value], in order of x.")
    marks: list[MarkOut]


class MetricsOut(Out):
    """The curves of a job. Points that come after them arrive in the stream behind `last_seq`."""

    last_seq: int
    data: list[CurvesOut]


class PreviewOut(Out):
    """A contact sheet: tiles in row order, `columns` a row, each `tile` px wide."""

    x: int = Field(description="Iteration; 0 shows the patches that the images start from.")
    total: int
    url: str
    sha256: str
    columns: int
    tile: int
    labels: list[int]
    names: list[str]


class SheetsOut(Out):
    """The contact sheets of one step, in order of x."""

    key: str
    kind: str
    title: str
    state: str
    previews: list[PreviewOut]


class PreviewsOut(Out):
    """The contact sheets of a job."""

    last_seq: int
    data: list[SheetsOut]


def metrics(session: Session, job: Job, *, names: Sequence[str] = (), max_points: int = 1000) -> MetricsOut:
    """Every curve of a job, at most `max_points` points each. names: only these, or what begins with one and a dot."""
    last_seq = job.last_seq  # read before the points: what is written meanwhile comes twice rather than never
    steps = _reached(session, job)
    series = _series(session, steps, names)
    marks = _marks(session, steps)
    return MetricsOut(
        last_seq=last_seq,
        data=[
            CurvesOut(
                key=step.key,
                kind=step.kind,
                title=step.title,
                state=step.state,
                unit=step.unit,
                total=step.total,
                series={name: downsample(points, max_points) for name, points in sorted(series[step.key].items())},
                marks=marks[step.key],
            )
            for step in steps
            if step.key in series or step.key in marks
        ],
    )


def _reached(session: Session, job: Job) -> list[Step]:
    """The steps that the job has come to: what an equal step of somebody else's job leaves is not shown before."""
    return [step for step in steps_of(session, job.id) if step.attempts]


def _series(session: Session, steps: Sequence[Step], names: Sequence[str]) -> defaultdict[str, dict[str, list[Point]]]:
    keys = [step.key for step in steps]
    query = select(Metric.step_key, Metric.name, Metric.x, Metric.value).where(Metric.step_key.in_(keys))
    found: defaultdict[str, dict[str, list[Point]]] = defaultdict(dict)
    for key, name, x, value in session.execute(query.order_by(Metric.step_key, Metric.name, Metric.x)):
        if not names or any(name == wanted or name.startswith(f"{wanted}.") for wanted in names):
            found[key].setdefault(name, []).append((x, value))
    return found


def _marks(session: Session, steps: Sequence[Step]) -> defaultdict[str, list[MarkOut]]:
    query = select(Mark).where(Mark.step_key.in_([step.key for step in steps])).order_by(Mark.step_key, Mark.x)
    found: defaultdict[str, list[MarkOut]] = defaultdict(list)
    for mark in session.scalars(query):
        found[mark.step_key].append(MarkOut.model_validate(mark.data))
    return found


def downsample(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most `max_points` of the points: the ends, and the least and the greatest of each stretch, so no spike is lost."""
    if len(points) <= max_points:
        return list(points)
    buckets = max((max_points - 2) // 2, 1)
    inner = points[1:-1]
    kept = {points[0], points[-1]}
    for bucket in range(buckets):
        stretch = inner[bucket * len(inner) // buckets : (bucket + 1) * len(inner) // buckets]
        if stretch:
            kept |= {min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])}
    return sorted(kept)


def previews(session: Session, job: Job) -> PreviewsOut:
    """Every contact sheet of a job, by step."""
    last_seq = job.last_seq
    steps = _reached(session, job)
    query = (
        select(Preview).where(Preview.step_key.in_([step.key for step in steps])).order_by(Preview.step_key, Preview.x)
    )
    sheets: defaultdict[str, list[PreviewOut]] = defaultdict(list)
    for row in session.scalars(query):
        sheets[row.step_key].append(preview_out(row.x, row.sha256, row.data))
    return PreviewsOut(
        last_seq=last_seq,
        data=[
            SheetsOut(key=step.key, kind=step.kind, title=step.title, state=step.state, previews=sheets[step.key])
            for step in steps
            if step.key in sheets
        ],
    )


def preview_out(x: int, sha256: str, data: dict[str, Any]) -> PreviewOut:
    """One contact sheet."""
    return PreviewOut.model_validate(data | {"x": x, "sha256": sha256, "url": f"/api/v1/previews/{sha256}"})
