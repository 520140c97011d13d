"""One row of a suite as it was measured: a JSON file a row, from which all tables and plots are drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.results.figures import PaperOut, difference, paper_figure
from app.results.suites import METHODS, RUNS, Run, run_like

Read = Callable[[str], Any]  # a path of the API -> its answer, as JSON
MAIN = "distilled"  # the subject that is a job's own method
SUCCEEDED, CANCELLED = "succeeded", "cancelled"
PAGE = 100


class _Kept(BaseModel):
    """Part of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(_Kept):
    """Where figures come from."""

    commit: str = Field(description="Of the server's code.")
    machine: str
    date: str = Field(description="Of the row's end, or of the day that is known.")


class ScoreRow(_Kept):
    """What students of one kind reached on one subject: top-1 on the real test set, %."""

    subject: str
    student: str
    labels: str
    runs: int = Field(description="Students, each of other first weights.")
    last: list[float] = Field(description="After the last epoch, by run; empty where only mean and spread were kept.")
    best: list[float] = Field(description="The best of all tests, by run: chosen on the test set.")
    mean: float
    std: float | None = Field(description="Sample standard deviation; null below two runs.")
    best_mean: float
    paper: PaperOut | None
    difference: float | None = Field(description="Points above the paper, where it is of the same setting.")


class TeacherRow(_Kept):
    """A teacher."""

    network: str
    top1_pct: float | None
    seconds: float | None


class RecoverRow(_Kept):
    """What the images cost."""

    images: int
    seconds: float = Field(description="Of all recover steps together, each by its own clock.")
    seconds_per_image: float
    peak_bytes: int | None = Field(None, description="Memory at most, where the steps told it.")


class ContinualRow(_Kept):
    """A curve of class-incremental learning: classes so far, and mean top-1 on them, %."""

    subject: str
    student: str
    steps: int
    runs: int
    curve: list[tuple[int, float]]


class ResultRow(_Kept):
    """One job of a suite."""

    run: str = Field(description="Name of the suite's sweep.")
    values: dict[str, str] = Field(description="Axis -> title of its value.")
    provenance: Provenance
    seed: int
    teachers: list[TeacherRow]
    scores: list[ScoreRow]
    continual: list[ContinualRow] = []
    recover: RecoverRow | None
    ends: dict[str, float] = Field(description="Curve -> its last value, the mean of all steps that have it.")
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """`cpu-cifar10/ipc-10-method-fadrm-plus`: the row's file without its ending."""
        words = "-".join(f"{axis} {title}" for axis, title in self.values.items()).lower().replace("+", "-plus")
        return f"{self.run}/{re.sub(r'[^a-z0-9.]+', '-', words).strip('-')}"

    def score(self, subject: str = MAIN) -> ScoreRow | None:
        """Of the first student."""
        return next((score for score in self.scores if score.subject == subject), None)


def save(row: ResultRow, folder: Path) -> Path:
    """Write a row down, in the place of what is there of it."""
    path = folder / f"{row.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written(row))
    return path


def written(row: ResultRow) -> str:
    """A row as the text of its file."""
    return json.dumps(_rounded(row.model_dump(mode="json")), indent=1) + "\n"


def _rounded(value: Any) -> Any:
    """With six digits, which is more than any of the figures means."""
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def load(folder: Path) -> dict[str, list[ResultRow]]:
    """Run -> its rows, numbers rising and methods as `METHODS`. Raises ValueError for a file that is none."""
    found: dict[str, list[ResultRow]] = {}
    for path in sorted(folder.glob("*/*.json")):
        row = ResultRow.model_validate_json(path.read_bytes())
        if row.run not in RUNS or f"{row.name}.json" != path.relative_to(folder).as_posix():
            raise ValueError(f"{path} says that it is {row.name}, which is another place or no suite's")
        found.setdefault(row.run, []).append(row)
    return {name: sorted(rows, key=lambda row: _place(RUNS[name][1], row)) for name, rows in found.items()}


def _place(run: Run, row: ResultRow) -> list[float]:
    return [_rank(run.titles[axis], title) for axis, title in row.values.items()]


def _rank(titles: Sequence[str], title: str) -> float:
    if set(titles) <= set(METHODS):
        return METHODS.index(title)
    try:
        return dict(zip(titles, map(float, titles), strict=True))[title]
    except ValueError:  # words: as the axis has them
        return titles.index(title)


def sweep_of(read: Read, run: Run) -> str | None:
    """Id of the newest sweep on a server that is this run's and was not cancelled."""
    after = ""
    while True:
        page = read(f"/sweeps?limit={PAGE}{after}")
        for sweep in page["data"]:
            titles = {axis["name"]: axis["titles"] for axis in sweep["axes"]}
            if sweep["state"] != CANCELLED and run_like(sweep["name"], titles) is run:
                return str(sweep["id"])
        if not page["has_more"]:
            return None
        after = f"&after={page['next_cursor']}"


def collected(read: Read, sweep_id: str, run: Run, commit: str, machine: str) -> Iterator[ResultRow]:
    """The rows of a sweep whose jobs have succeeded. Raises ValueError when the sweep varies something else."""
    sweep = read(f"/sweeps/{sweep_id}")
    titles = {axis["name"]: axis["titles"] for axis in sweep["axes"]}
    if titles != run.titles:
        raise ValueError(f"{sweep_id} varies {_words(titles)}, and {run.name} varies {_words(run.titles)}")
    for cell in sweep["cells"]:
        if cell["state"] == SUCCEEDED:
            yield _row(read, run, cell, commit, machine)


def _words(titles: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{axis}: {', '.join(of)}" for axis, of in titles.items())


def _row(read: Read, run: Run, cell: Mapping[str, Any], commit: str, machine: str) -> ResultRow:
    at = f"/jobs/{cell['job_id']}"
    job, spec, results = read(at), _anywhere(read(f"{at}/spec")), read(f"{at}/results")
    curves = read(f"{at}/metrics?max_points=10")
    return ResultRow(
        run=run.name,
        values=cell["values"],
        provenance=Provenance(commit=commit, machine=machine, date=job["finished_at"][:10]),
        seed=spec["seed"],
        teachers=[
            TeacherRow(network=one["network"], top1_pct=one["top1_pct"], seconds=one["seconds"])
            for one in results["teachers"]
        ],
        scores=[
            _score(run, cell["values"], spec, row) for row in results["rows"] if row["ipc"] == spec["ipc"] and row["n"]
        ],
        continual=[
            ContinualRow(**{name: one[name] for name in ContinualRow.model_fields})
            for one in results.get("continual", [])
        ],
        recover=_recover(job["steps"]),
        ends=_ends(curves["data"]),
        spec=spec,
    )


def _anywhere(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec without the place of its images on one machine: the folder's own name is kept."""
    dataset = dict(spec["dataset"])
    if "path" in dataset:
        dataset["path"] = Path(dataset["path"]).name
    return spec | {"dataset": dataset}


def _score(run: Run, values: Mapping[str, str], spec: Mapping[str, Any], row: Mapping[str, Any]) -> ScoreRow:
    paper = ghost(run, values, spec, row["subject"], row["student"], row["labels"])
    return ScoreRow(
        **{name: row[name] for name in ("subject", "student", "labels", "last", "best", "mean", "std", "best_mean")},
        runs=row["n"],
        paper=paper,
        difference=difference(row["mean"], paper),
    )


def ghost(
    run: Run | None, values: Mapping[str, str], spec: Mapping[str, Any], subject: str, student: str, labels: str
) -> PaperOut | None:
    """What a paper reports beside a score: of the same setting, else of the ablation that the run repeats."""
    if run is not None and run.ablation is not None:
        return run.ablation.figure(next(iter(values.values()))) if subject == MAIN else None
    return paper_figure(spec, subject, student, labels)


def _recover(steps: list[dict[str, Any]]) -> RecoverRow | None:
    done = [step for step in steps if step["kind"] == "recover" and step["seconds"] and step["result"]]
    if not done:
        return None
    images, seconds = sum(step["result"]["images"] for step in done), sum(step["seconds"] for step in done)
    peaks = [peak for step in done if (peak := step["result"].get("peak_bytes"))]
    return RecoverRow(
        images=images, seconds=seconds, seconds_per_image=seconds / images, peak_bytes=max(peaks, default=None)
    )


def _ends(curves: list[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for curve in curves:
        for name, points in curve["series"].items():
            if points:
                found.setdefault(name, []).append(points[-1][1])
    return {name: fmean(values) for name, values in sorted(found.items())}
