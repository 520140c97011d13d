"""The page of results is what its rows say, and nothing else."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from app.pages.assets import ROOT
from app.results import draw, rows
from app.results.figures import PaperOut
from app.results.rows import Provenance, RecoverRow, ResultRow, ScoreRow, TeacherRow
from app.results.suites import RUNS

DOCS = ROOT / "docs"
PAPER = PaperOut(top1_pct=48.9, source="A paper, Table 1", setting="Tiny-ImageNet, 10 per class, ResNet-18", alike=True)


def row(method: str, mean: float, *, ipc: str = "10", paper: PaperOut | None = None) -> ResultRow:
    score = ScoreRow(
        subject="distilled",
        student="resnet18",
        labels="soft",
        runs=3,
        last=[mean] * 3,
        best=[mean + 1] * 3,
        mean=mean,
        std=0.25,
        best_mean=mean + 1,
        paper=paper,
        difference=mean - paper.top1_pct if paper and paper.alike else None,
    )
    return ResultRow(
        run="tiny",
        values={"ipc": ipc, "method": method},
        provenance=Provenance(commit="abc1234", machine="a GPU", date="2026-01-02"),
        seed=0,
        teachers=[TeacherRow(network="resnet18", top1_pct=61.25, seconds=10.0)],
        scores=[score],
        recover=RecoverRow(images=200, seconds=100.0, seconds_per_image=0.5, peak_bytes=3 * 2**30),
        ends={},
        spec={"dataset": {"source": "folder", "path": "tiny"}, "ipc": int(ipc)},
    )


def test_the_committed_page_is_what_the_committed_rows_draw(tmp_path: Path) -> None:
    shutil.copy(DOCS / "results.md", tmp_path)
    shutil.copytree(DOCS / "results", tmp_path / "results")
    drawn = draw.draw(tmp_path / "results.md", rows.load(tmp_path / "results"))
    for path in drawn:
        there = DOCS / path.relative_to(tmp_path)
        assert path.read_text() == there.read_text(), f"{there} is not what its rows say: run `fadrm results draw`"
    assert {path.name for path in (DOCS / "results").glob("*.svg")} == {path.name for path in drawn[1:]}


def test_no_row_names_a_place_of_a_machine() -> None:
    found = rows.load(DOCS / "results")
    assert found and not [one.name for group in found.values() for one in group if "/" in str(one.spec["dataset"])]


def test_a_table_has_a_line_a_row_with_the_best_in_bold_and_the_paper_beside() -> None:
    told = draw.table(RUNS["tiny"][1], {"tiny": [row("RDED", 40.0), row("FADRM", 47.5, paper=PAPER)]})
    head, _, first, second, *_ = [line for line in told.splitlines() if line.startswith("|")]
    assert head.startswith("| ipc | method | last epoch, % | best epoch, % | paper, % | difference | teacher, % |")
    assert first.startswith("| 10 | RDED | 40.0 ± 0.2 | 41.0 | – | – | 61.2 | 0.5 | 3.0 |")
    assert second.startswith("| 10 | FADRM | **47.5 ± 0.2** | 48.5 | *48.9* | -1.4 | 61.2 |")
    assert "2 of 12 rows, 3 students a row; a GPU, commit abc1234; 2026-01-02." in told and "A paper, Table 1." in told


def test_the_best_is_sought_among_equal_images_per_class() -> None:
    found = [row("RDED", 10.0, ipc="1"), row("FADRM", 12.0, ipc="1"), row("RDED", 41.0), row("FADRM", 40.0)]
    told = draw.table(RUNS["tiny"][1], {"tiny": found})
    assert "**12.0 ± 0.2**" in told and "**41.0 ± 0.2**" in told and told.count("**") == 4


def test_a_figure_of_another_setting_says_which_and_gives_no_difference() -> None:
    other = PAPER.model_copy(update={"alike": False})
    told = draw.table(RUNS["tiny"][1], {"tiny": [row("FADRM", 47.5, paper=other)]})
    assert "| difference |" not in told and "A paper, Table 1, Tiny-ImageNet, ResNet-18." in told


def test_what_was_not_run_says_how_to() -> None:
    assert draw.table(RUNS["cross"][1], {}) == "Not measured yet: `make results SUITE=cross`.\n"


def test_a_plot_has_a_bar_a_row_its_spread_and_the_paper() -> None:
    drawn = draw.plot(RUNS["tiny"][0], {"tiny": [row("RDED", 40.0), row("FADRM", 47.5, paper=PAPER)]})
    classes = [one.get("class") for one in ET.fromstring(drawn).iter()]
    assert classes.count("bar") == 1 and classes.count("best") == 1
    assert classes.count("whisker") == 2 and classes.count("ghost") == 1


@pytest.mark.parametrize(("page", "says"), [("no mark", "no mark for"), ("<!-- results: x -->\n<!-- end -->", "x")])
def test_a_page_without_the_right_marks_is_refused(tmp_path: Path, page: str, says: str) -> None:
    path = tmp_path / "results.md"
    path.write_text(page)
    with pytest.raises(ValueError, match=says):
        draw.draw(path, {"tiny": [row("RDED", 40.0)]} if page == "no mark" else {})
    assert path.read_text() == page


def test_rows_are_in_the_order_of_their_axes_and_in_their_own_place(tmp_path: Path) -> None:
    for one in (row("FADRM", 47.5), row("random", 30.0), row("FADRM", 20.0, ipc="1"), row("RDED", 40.0)):
        rows.save(one, tmp_path)
    found = rows.load(tmp_path)["tiny"]
    assert [tuple(one.values.values()) for one in found] == [
        ("1", "FADRM"),
        ("10", "random"),
        ("10", "RDED"),
        ("10", "FADRM"),
    ]
    (tmp_path / "tiny" / "ipc-10-method-rded.json").rename(tmp_path / "tiny" / "elsewhere.json")
    with pytest.raises(ValueError, match="another place"):
        rows.load(tmp_path)
