"""A job while it runs: bars with live numbers in a terminal or a notebook, a line a change elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fadrm.jobs import Job
from fadrm.models import Event, Stage
from fadrm.words import duration

if TYPE_CHECKING:
    from fadrm.client import Client

LOOK_S = 0.4  # between two looks at the job while its events come in
MARKS = {"succeeded": "✔", "failed": "✘", "cancelled": "–", "running": "▸"}
LIVE = {  # of which stage a number is shown while it runs, and how
    "recover.loss": ("recover", "loss {:.3g}"),
    "teach.top1": ("teach", "{:.1f} %"),
    "evaluate.top1": ("evaluate", "{:.1f} %"),
    "continual.top1": ("continual", "{:.1f} %"),
}


def follow(client: Client, job_id: str, console: Console | None = None) -> Job:
    """Show a job until it has ended. Returns how it ended."""
    console = console or Console()
    job = client.job(job_id)
    view: _Bars | _Lines = _Bars(console) if console.is_terminal or console.is_jupyter else _Lines(console)
    numbers = _Numbers()
    with view:
        view.show(job, numbers)
        seen = time.monotonic()
        first_preview = _FirstPreview(console)
        for event in client.events(job_id):
            first_preview.hear(event)
            numbers.hear(event)
            if time.monotonic() - seen > LOOK_S:
                view.show(client.job(job_id), numbers)
                seen = time.monotonic()
        job = client.job(job_id)
        view.show(job, numbers)
    return job


@dataclass(slots=True)
class _Numbers:
    """The last value of what is worth watching, by stage."""

    latest: dict[str, str] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        if event.kind == "metrics":
            for name, points in event.data.get("points", {}).items():
                if name in LIVE and points:
                    stage, form = LIVE[name]
                    self.latest[stage] = form.format(points[-1][1])


@dataclass(slots=True)
class _FirstPreview:
    """Says once when the first images could be seen."""

    console: Console
    _begun: Event | None = None
    _done: bool = False

    def hear(self, event: Event) -> None:
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

    def show(self, job: Job, numbers: _Numbers) -> None:
        for stage in job.stages:
            if stage.kind not in self._tasks:
                self._tasks[stage.kind] = self._progress.add_task(stage.title, total=1.0, mark=" ", note="")
            note = [_note(stage), numbers.latest.get(stage.kind, ""), _left(job, stage)]
            self._progress.update(
                self._tasks[stage.kind],
                completed=stage.progress,
                mark=MARKS.get(stage.state, " "),
                note=" · ".join(filter(None, note)),
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

    def show(self, job: Job, numbers: _Numbers) -> None:
        for stage in job.stages:
            if stage.state != self._states.get(stage.kind) and stage.state in MARKS:
                note = [_note(stage), numbers.latest.get(stage.kind, "")]
                told = f"{MARKS[stage.state]} {stage.title:<10} {' · '.join(filter(None, note))}"
                self.console.print(told, highlight=False, soft_wrap=True)
            self._states[stage.kind] = stage.state


def _note(stage: Stage) -> str:
    steps = f"{stage.whole} of {stage.steps}" if stage.steps > 1 else stage.state
    if stage.cached:
        return "found in the store"
    if stage.state == "succeeded" and stage.seconds is not None:
        return f"{stage.steps} steps, {stage.seconds:.1f} s" if stage.steps > 1 else f"{stage.seconds:.1f} s"
    return steps


def _left(job: Job, stage: Stage) -> str:
    """Time left of the whole job, told at the stage that runs."""
    if stage.state != "running" or job.eta_seconds is None:
        return ""
    return f"about {duration(job.eta_seconds)} left in all"
