"""The score card as it is drawn: rows by student, differences to the baselines, and every run as a dot on one scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor

from app.views import ResultsOut
from app.views.results import RowOut

WIDTH = 240  # of the scale, px
MARGIN = 10  # px at its ends
STEPS = (0.5, 1, 2, 5, 10, 20, 25)  # between ticks, points


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark of the scale."""

    x: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRow:
    """A line of the card, in px where it is drawn."""

    out: RowOut
    to_random: float | None  # points
    to_rded: float | None
    dots: tuple[float, ...]
    mean: float | None
    low: float | None  # one standard deviation below the mean
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one student with one kind of labels at one number of images per class."""

    student: str
    labels: str
    ipc: int
    rows: tuple[CardRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Across:
    """Students against subjects, with one kind of labels at one number of images per class."""

    labels: str
    ipc: int
    titles: tuple[str, ...]  # of the subjects: columns
    rows: tuple[tuple[str, tuple[CardCell, ...]], ...]  # student -> a cell a subject


@dataclass(frozen=True, slots=True, kw_only=True)
class CardCell:
    """One student on one subject."""

    mean: float | None
    std: float | None
    leads: bool  # the greatest mean of its row


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The whole card."""

    groups: tuple[Group, ...]
    across: tuple[Across, ...]  # where there are several students
    several_ipcs: bool
    has_chosen: bool  # an epoch that held-back images chose
    ticks: tuple[Tick, ...]
    ceiling: float | None  # the best teacher, px


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Accuracies from `low` to `high`, %."""

    low: float
    high: float
    step: float

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - 2 * MARGIN), 1)

    def ticks(self) -> tuple[Tick, ...]:
        count = round((self.high - self.low) / self.step)
        values = [self.low + index * self.step for index in range(count + 1)]
        return tuple(Tick(x=self.x(value), text=f"{value:g}") for value in values)


def card(results: ResultsOut) -> Card:
    """What the template draws."""
    tops = [teacher.top1_pct for teacher in results.teachers if teacher.top1_pct is not None]
    reached = [value for row in results.rows for value in row.last]
    scale = scale_of(reached + tops) if reached else None
    groups: dict[tuple[str, str, int], list[RowOut]] = {}
    for row in results.rows:
        groups.setdefault((row.student, row.labels, row.ipc), []).append(row)
    return Card(
        groups=tuple(
            Group(student=student, labels=labels, ipc=ipc, rows=tuple(_rows(rows, scale)))
            for (student, labels, ipc), rows in groups.items()
        ),
        across=tuple(_across(results.rows)),
        several_ipcs=len({row.ipc for row in results.rows}) > 1,
        has_chosen=any(row.chosen for row in results.rows),
        ticks=scale.ticks() if scale else (),
        ceiling=scale.x(max(tops)) if scale and tops else None,
    )


def _across(rows: Sequence[RowOut]) -> Iterable[Across]:
    """A table for each kind of labels and ipc that several students were trained with."""
    for labels, ipc in dict.fromkeys((row.labels, row.ipc) for row in rows):
        own = [row for row in rows if (row.labels, row.ipc) == (labels, ipc)]
        students = list(dict.fromkeys(row.student for row in own))
        if len(students) < 2:
            continue
        titles = {row.subject: row.title for row in own}
        found = {(row.student, row.subject): row for row in own}
        yield Across(
            labels=labels,
            ipc=ipc,
            titles=tuple(titles.values()),
            rows=tuple(
                (student, _cells([found.get((student, subject)) for subject in titles])) for student in students
            ),
        )


def _cells(rows: Sequence[RowOut | None]) -> tuple[CardCell, ...]:
    most = max((row.mean for row in rows if row and row.mean is not None), default=None)
    return tuple(
        CardCell(
            mean=row.mean if row else None,
            std=row.std if row else None,
            leads=row is not None and row.mean is not None and row.mean == most,
        )
        for row in rows
    )


def scale_of(values: Sequence[float]) -> Scale | None:
    """Round ends around the values, with at most seven ticks."""
    if not values:
        return None
    least, most = min(values), max(values)
    step = next((step for step in STEPS if (most - least) / step <= 5), STEPS[-1])
    low, high = floor(least / step) * step, ceil(most / step) * step
    return Scale(low=low, high=high if high > low else low + step, step=step)


def _rows(rows: Sequence[RowOut], scale: Scale | None) -> Iterable[CardRow]:
    means = {row.subject: row.mean for row in rows}
    for row in rows:
        spread = (row.mean - row.std, row.mean + row.std) if row.mean is not None and row.std is not None else None
        yield CardRow(
            out=row,
            to_random=_difference(row, "random", means),
            to_rded=_difference(row, "rded", means),
            dots=tuple(scale.x(value) for value in row.last) if scale else (),
            mean=scale.x(row.mean) if scale and row.mean is not None else None,
            low=scale.x(spread[0]) if scale and spread else None,
            high=scale.x(spread[1]) if scale and spread else None,
        )


def _difference(row: RowOut, baseline: str, means: dict[str, float | None]) -> float | None:
    other = means.get(baseline)
    if row.subject == baseline or row.mean is None or other is None:
        return None
    return row.mean - other
