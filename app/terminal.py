"""How jobs look in a terminal: progress while they run, the score card when they are done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from app.client import Client
from app.views import EventOut, JobOut, ResultsOut
from app.views.results import RowOut
from app.views.sentences import duration
from app.views.stages import StageOut
from engine.networks import network_title

LOOK_S = 0.4  # between two looks at the job while its events come in
MARKS = {"succeeded": "✔", "failed": "✘", "cancelled": "–", "running": "▸"}


def follow(client: Client, job_id: str, console: Console) -> JobOut:
    """Show a job until it has ended: bars in a terminal, lines elsewhere. Returns how it ended."""
    job = client.job(job_id)
    view: _Bars | _Lines = _Bars(console) if console.is_terminal else _Lines(console)
    with view:
        view.show(job)
        seen = time.monotonic()
        first_preview = _FirstPreview(console)
        for event in client.events(job_id):
            first_preview.hear(event)
            if time.monotonic() - seen > LOOK_S:
                view.show(client.job(job_id))
                seen = time.monotonic()
        job = client.job(job_id)
        view.show(job)
    return job


@dataclass(slots=True)
class _FirstPreview:
    """Says once when the first images could be seen."""

    console: Console
    _begun: EventOut | None = None
    _done: bool = False

    def hear(self, event: EventOut) -> None:
        if self._begun is None:
            self._begun = event
        if event.kind == "preview" and not self._done:
            self._done = True
            seconds = (event.at - self._begun.at).total_seconds()
            self.console.print(f"  First images after {seconds:.0f} s: see the job's page.", highlight=False)


class _Bars:
    """One bar a kind of step, drawn anew in place."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.fields[mark]} {task.description:<10}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> None:
        self._progress.start()

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, job: JobOut) -> None:
        for stage in job.stages:
            if stage.kind not in self._tasks:
                self._tasks[stage.kind] = self._progress.add_task(stage.title, total=1.0, mark=" ", note="")
            self._progress.update(
                self._tasks[stage.kind],
                completed=stage.progress,
                mark=MARKS.get(stage.state, " "),
                note=_note(stage),
            )


@dataclass(slots=True)
class _Lines:
    """A line whenever a kind of step begins or ends: for logs and pipes."""

    console: Console
    _states: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, job: JobOut) -> None:
        for stage in job.stages:
            if stage.state != self._states.get(stage.kind) and stage.state in MARKS:
                self.console.print(f"{MARKS[stage.state]} {stage.title:<10} {_note(stage)}", highlight=False)
            self._states[stage.kind] = stage.state


def _note(stage: StageOut) -> str:
    steps = f"{stage.whole} of {stage.steps}" if stage.steps > 1 else stage.state
    if stage.cached:
        return "found in the store"
    if stage.state == "succeeded" and stage.seconds is not None:
        return f"{stage.steps} steps, {stage.seconds:.1f} s" if stage.steps > 1 else f"{stage.seconds:.1f} s"
    return steps


def show_outcome(client: Client, job: JobOut, console: Console, path_of: Callable[[str], str] = lambda _: "") -> None:
    """What there is to say at the end: the score card and the downloads, or what went wrong."""
    if job.state != "succeeded":
        console.print(f"[bold red]✘ {job.state}[/]: {escape(job.sentence)}", highlight=False)
        if job.error is not None and job.error.hint:
            console.print(f"  {job.error.hint}", highlight=False, markup=False)
        return
    took = (job.finished_at - job.created_at).total_seconds() if job.finished_at else 0.0
    console.print(f"\n[bold]{escape(job.name)}[/], done in {duration(took)}", highlight=False)
    results = client.results(job.id)
    console.print(score_card(results))
    for teacher in results.teachers:
        accuracy = "?" if teacher.top1_pct is None else f"{teacher.top1_pct:.1f} %"
        console.print(f"Teacher {network_title(teacher.network)}: {accuracy} on the real test set.", highlight=False)
    for sentence in results.verdicts:
        console.print(sentence, highlight=False, markup=False)
    console.print()
    for file in client.artifacts(job.id).data:
        if "/" not in file.name:
            size = f"{file.size_bytes / 1e6:.1f} MB"
            console.print(f"Download  {client.url}{file.url}  ({size})", highlight=False, soft_wrap=True)
            if path := path_of(file.name):
                console.print(f"          {path}", highlight=False, soft_wrap=True)
    console.print(f"Page      {client.url}{job.urls['web']}", highlight=False, soft_wrap=True)


def score_card(results: ResultsOut) -> Table:
    """The accuracies on real test images, with their spread over the runs."""
    table = Table(title="Top-1 accuracy on the real test set, %", title_justify="left")
    table.add_column("Images", no_wrap=True)
    for name in ("Student", "Labels"):
        table.add_column(name)
    for name in ("Runs", "Last epoch", "Best on test"):
        table.add_column(name, justify="right")
    several = len({row.ipc for row in results.rows}) > 1
    for row in results.rows:
        table.add_row(
            f"{row.title}, {row.ipc} a class" if several else row.title,
            network_title(row.student),
            row.labels,
            f"{row.n}/{row.planned}",
            _spread(row),
            _number(row.best_mean),
        )
    return table


def _spread(row: RowOut) -> str:
    mean = _number(row.mean)
    return mean if row.std is None else f"{mean} ± {row.std:.1f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
