"""How plans, jobs and comparisons look in a terminal. A table never wraps: in a terminal long cells end in an ellipsis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from pydantic_core import to_jsonable_python
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.networks import network_title
from fadrm import Client, Job
from fadrm.comparison import Comparison
from fadrm.models import Estimate, Plan, PlannedStep, Results
from fadrm.notebook import number, spread
from fadrm.words import duration, size

LEAST = 10  # characters that a cell keeps when there is too little room
GAP = 2  # between columns


def print_json(console: Console, value: Any) -> None:
    """An answer of the API as JSON, with nothing around it."""
    text = json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_table(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """A line a row, whatever the width. The first column, ids and names, is never cut; the last one is cut first."""
    lines = [tuple(head), *(tuple(" ".join(cell.split()) for cell in row) for row in rows)]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(head))]
    excess = sum(widths) + GAP * (len(widths) - 1) - console.width if console.is_terminal else 0
    for place in range(len(widths) - 1, 0, -1):
        cut = min(max(excess, 0), widths[place] - min(widths[place], LEAST))
        widths[place], excess = widths[place] - cut, excess - cut
    if title:
        console.print(title, highlight=False, markup=False, soft_wrap=True)
    how: dict[str, Any] = {"crop": True, "no_wrap": True} if console.is_terminal else {"soft_wrap": True}
    for line in lines:
        cells = [Text(cell) for cell in line]
        for cell, width in zip(cells, widths, strict=True):
            cell.truncate(width, overflow="ellipsis", pad=True)
        told = Text(" " * GAP).join(cells)
        told.rstrip()
        console.print(told, style="bold" if line is lines[0] else "", highlight=False, **how)


def show_plan(plan: Plan, console: Console) -> None:
    """What a job would do, a line a kind of step; what it costs; what to mind."""
    stages = [(kind, list(steps)) for kind, steps in groupby(plan.steps, key=lambda step: step.kind)]
    rows = [(kind, str(len(steps)), _left(steps), _titles(steps)) for kind, steps in stages]
    print_table(console, ("Kind", "Steps", "State", "What"), rows, plan.name)
    console.print(
        cost(plan.estimate, sum(not step.cached for step in plan.steps), len(plan.steps)),
        highlight=False,
        soft_wrap=True,
    )
    if plan.starts_in_minutes is not None:
        when = f"in about {duration(60 * plan.starts_in_minutes)}" if plan.starts_in_minutes else "at once"
        console.print(f"It would start {when}.", highlight=False)
    warn(plan.warnings, console)


def cost(estimate: Estimate, left: int, steps: int) -> str:
    """What is left to do, in a sentence."""
    if not left:
        return f"All {steps} steps are in the store already: it takes no time."
    times = " or ".join(f"{duration(seconds)} on a {device.upper()}" for device, seconds in estimate.seconds.items())
    times += ", as the job is too small for one" if estimate.seconds["gpu"] >= estimate.seconds["cpu"] else ""
    return f"{left} of {steps} steps are to do: roughly {times}, one worker; {size(estimate.size_bytes)} on disk, {_memory(estimate)}."


def _memory(estimate: Estimate) -> str:
    tensors = f" and {size(estimate.device_bytes)} on the device" if estimate.device_bytes else ""
    return f"{size(estimate.host_bytes)} of memory{tensors}"


def warn(warnings: Iterable[str], console: Console) -> None:
    """What can be done, and is hardly wanted."""
    for warning in warnings:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False, soft_wrap=True)


def _left(steps: Sequence[PlannedStep]) -> str:
    cached = sum(step.cached for step in steps)
    if cached == len(steps):
        return "found in the store"
    return f"{len(steps) - cached} to do" if cached else "to do"


def _titles(steps: Sequence[PlannedStep]) -> str:
    more = f", and {len(steps) - 1} more" if len(steps) > 1 else ""
    return steps[0].title + more


def show_comparison(made: Comparison, console: Console) -> None:
    """What differs in the specs first, then what came of it."""
    names = [f"{chr(ord('A') + place)}" for place in range(len(made.jobs))]
    for name, job in zip(names, made.jobs, strict=True):
        console.print(f"{name}  {job.id}  {job.state:<9}  {escape(job.name)}", highlight=False, soft_wrap=True)
    fields = [(one.pointer, *(_value(value) for value in one.values)) for one in made.differences]
    console.print()
    print_table(console, ("What differs", *names), fields or [("nothing", *("" for _ in names))])
    scores = [
        (f"{one.title}, {network_title(one.student)}, {one.labels}", *(spread(row) if row else "–" for row in one.rows))
        for one in made.scores
    ]
    console.print()
    print_table(console, ("Top-1, last epoch, %", *names), scores)


def _value(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def show_outcome(client: Client, job: Job, console: Console, path_of: Callable[[str], str] = lambda _: "") -> None:
    """What there is to say at the end: the score card and the downloads, or what went wrong."""
    if job.state != "succeeded":
        console.print(f"[bold red]✘ {job.state}[/]: {escape(job.sentence)}", highlight=False)
        if job.error is not None and job.error.hint:
            console.print(f"  {job.error.hint}", highlight=False, markup=False)
        return
    took = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at else 0.0
    console.print(f"\n[bold]{escape(job.name)}[/], done in {duration(took)}", highlight=False)
    results = client.results(job.id)
    console.print(score_card(results) if results.rows else "No student was named: there is no score card.")
    for teacher in results.teachers:
        accuracy = "?" if teacher.top1_pct is None else f"{teacher.top1_pct:.1f} %"
        console.print(f"Teacher {network_title(teacher.network)}: {accuracy} on the real test set.", highlight=False)
    for sentence in results.verdicts:
        console.print(sentence, highlight=False, markup=False)
    console.print()
    for file in client.files(job.id).data:
        if "/" not in file.name:
            told = f"Download  {client.url}{file.url}  ({size(file.size_bytes)})"
            console.print(told, highlight=False, soft_wrap=True)
            if path := path_of(file.name):
                console.print(f"          {path}", highlight=False, soft_wrap=True)
    console.print(f"Page      {job.web}", highlight=False, soft_wrap=True)


def score_card(results: Results) -> Table:
    """The accuracies on real test images, with their spread over the runs. A student who is the only one stands above."""
    students = {row.student for row in results.rows}
    whose = f" of {network_title(*students)}" if len(students) == 1 else ""
    table = Table(title=f"Top-1 accuracy{whose} on the real test set, %", title_justify="left")
    table.add_column("Images", no_wrap=True)
    for name in ("Labels",) if whose else ("Student", "Labels"):
        table.add_column(name)
    several = len({row.ipc for row in results.rows}) > 1
    has_chosen = any(row.chosen_mean is not None for row in results.rows)
    for name in ("Runs", "Last epoch", *(["Chosen epoch"] if has_chosen else []), "Best on test"):
        table.add_column(name, justify="right", no_wrap=name == "Last epoch")
    for row in results.rows:
        title = f"{row.title}, {row.ipc} a class" if several else row.title
        student = [] if whose else [network_title(row.student)]
        chosen = [number(row.chosen_mean)] if has_chosen else []
        runs = f"{row.n}/{row.planned}"
        table.add_row(title, *student, row.labels, runs, spread(row), *chosen, number(row.best_mean))
    return table
