"""The score card as it is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from app.models import utc_now
from app.pages.render import ago, figure, short_duration, signed
from app.pages.scorecard import MARGIN, WIDTH, card, scale_of
from app.views.results import ResultsOut, RowOut, TeacherOut
from fadrm.words import size

NOTHING_MORE: dict[str, Any] = {"full_data": [], "robustness": [], "continual": [], "quick": False}


def row(subject: str, *last: float, student: str = "resnet18", ipc: int = 10) -> RowOut:
    mean = sum(last) / len(last) if last else None
    return RowOut(
        subject=subject,
        title=subject,
        student=student,
        labels="soft",
        ipc=ipc,
        n=len(last),
        planned=3,
        mean=mean,
        std=0.5 if len(last) > 1 else None,
        last=list(last),
        chosen=[],
        chosen_mean=None,
        best=list(last),
        best_mean=mean,
        runs=[],
    )


def results(*rows: RowOut, teacher: float | None = 80.0) -> ResultsOut:
    known = TeacherOut(key="k", network="resnet18", state="succeeded", cached=False, top1_pct=teacher, seconds=1.0)
    return ResultsOut(complete=False, rows=list(rows), teachers=[known], verdicts=[], **NOTHING_MORE)


def test_differences_are_those_to_the_baselines_of_the_same_student_and_labels() -> None:
    [group] = card(results(row("distilled", 60, 62), row("rded", 58), row("random", 50))).groups
    distilled, rded, random = group.rows
    assert (distilled.to_random, distilled.to_rded) == (11.0, 3.0)
    assert (rded.to_random, rded.to_rded) == (8.0, None)
    assert random.to_random is None


def test_rows_without_a_run_have_no_dots_and_no_differences() -> None:
    shown = card(results(row("distilled"), row("random", 50)))
    assert shown.groups[0].rows[0].dots == () and shown.groups[0].rows[0].to_random is None
    assert shown.ceiling is not None


def test_before_the_first_run_there_is_no_scale() -> None:
    shown = card(results(row("distilled")))
    assert shown.ticks == () and shown.ceiling is None


@pytest.mark.parametrize("values", [(50.0,), (0.0, 100.0), (97.1, 97.9), (10.0, 34.0, 61.3)])
def test_every_value_lies_on_the_scale_between_few_round_ticks(values: tuple[float, ...]) -> None:
    scale = scale_of(values)
    assert scale is not None
    assert all(MARGIN <= scale.x(value) <= WIDTH - MARGIN for value in values)
    assert 2 <= len(scale.ticks()) <= 7


def test_figures_read_as_people_write_them() -> None:
    assert signed(1.25) == "+1.2" and signed(-0.31) == "−0.3" and signed(0.01) == "0.0" and signed(None) == "–"
    assert size(999) == "999 bytes" and size(48_213) == "48.2 kB" and size(3_100_000_000) == "3.1 GB"
    assert short_duration(0.42) == "0.4 s" and short_duration(75) == "1 min 15 s" and short_duration(None) == ""
    assert figure(0.123456) == "0.1235"
    assert ago(utc_now()) == "0 s ago"


def test_each_number_of_images_per_class_is_compared_with_itself() -> None:
    shown = card(
        results(row("distilled", 60), row("random", 50), row("distilled", 30, ipc=1), row("random", 25, ipc=1))
    )
    assert [(group.ipc, group.rows[0].to_random) for group in shown.groups] == [(10, 10.0), (1, 5.0)]
    assert shown.several_ipcs and not shown.across


def test_several_students_make_a_table_across_them() -> None:
    shown = card(
        results(
            row("distilled", 60),
            row("random", 50),
            row("distilled", 40, student="resnet50"),
            row("random", student="x"),
        )
    )
    [across] = shown.across
    assert across.titles == ("distilled", "random")
    cells = {student: [(cell.mean, cell.leads) for cell in found] for student, found in across.rows}
    assert cells == {
        "resnet18": [(60, True), (50, False)],
        "resnet50": [(40, True), (None, False)],
        "x": [(None, False), (None, False)],
    }
