"""Curves and contact sheets of a job's steps, small enough to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.jobs import steps_of
from app.models import Event, Job, Mark, Preview, Step
from app.views.out import Out
from app.views.points import Point, points_of

CLOCK_EVENTS = 400  # of a job's history that tell when points came


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
    clock: list[Point] = Field(
        [], description="Where clocks were asked for: [x, seconds since the step began] of some of the points."
    )


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


def metrics(
    session: Session, job: Job, *, names: Sequence[str] = (), max_points: int = 1000, clocks: bool = False
) -> MetricsOut:
    """Every curve of a job, at most `max_points` points each. names: only these, or what begins with one and a dot.

    clocks: also when points came.
    """
    last_seq = job.last_seq  # read before the points: what is written meanwhile comes twice rather than never
    steps = _reached(session, job)
    series = points_of(session, [step.key for step in steps], names, max_points)
    times = _clocks(session, steps) if clocks else {}
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
                series=dict(sorted(series[step.key].items())),
                marks=marks[step.key],
                clock=times.get(step.key, []),
            )
            for step in steps
            if step.key in series or step.key in marks
        ],
    )


def _reached(session: Session, job: Job) -> list[Step]:
    """The steps that the job has come to: what an equal step of somebody else's job leaves is not shown before."""
    return [step for step in steps_of(session, job.id) if step.attempts]


def _clocks(session: Session, steps: Sequence[Step]) -> dict[str, list[tuple[int, float]]]:
    """Step's key -> when some of its points came, as the job's history has it: x, and seconds since the step began."""
    began = {step.id: step.started_at for step in steps if step.started_at is not None}
    told = (Event.step_id.in_(began), Event.kind == "metrics", Event.job_id.in_({step.job_id for step in steps}))
    count = session.scalar(select(func.count()).select_from(Event).where(*told)) or 0
    some = select(Event.step_id, Event.at, Event.data).where(*told, Event.seq % (count // CLOCK_EVENTS + 1) == 0)
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for step_id, at, data in session.execute(some.order_by(Event.seq)):
        x = max(points[-1][0] for points in data["points"].values())
        found[data["key"]][x] = round((at - began[step_id]).total_seconds(), 1)
    return {key: sorted(clock.items()) for key, clock in found.items()}


def _marks(session: Session, steps: Sequence[Step]) -> defaultdict[str, list[MarkOut]]:
    query = select(Mark).where(Mark.step_key.in_([step.key for step in steps])).order_by(Mark.step_key, Mark.x)
    found: defaultdict[str, list[MarkOut]] = defaultdict(list)
    for mark in session.scalars(query):
        found[mark.step_key].append(MarkOut.model_validate(mark.data))
    return found


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
