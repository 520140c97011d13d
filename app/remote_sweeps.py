"""`fadrm sweep`: submit, plan, list, show, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.remote import FAILED, AsJson, connect, err, out, print_json

if TYPE_CHECKING:
    from fadrm.models import Cell, CellScore
    from fadrm.sweeps import Sweep

app = typer.Typer(help="Many jobs by one request: what varies, and what came of it.", no_args_is_help=True)
SweepFile = Annotated[
    Path, typer.Argument(help="A base (spec or preset) and axes, YAML or JSON.", exists=True, dir_okay=False)
]
SweepId = Annotated[str, typer.Argument(help="The sweep's id.", metavar="SWEEP")]
Student = Annotated[str, typer.Option(help="Whose accuracies; by default of each job the first student's.")]
Labels = Annotated[str, typer.Option(help="soft or hard; by default the first.")]


@app.command()
def submit(
    file: SweepFile,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all jobs have ended, then show the table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a sweep: all of its jobs, or none. Its id goes to stdout, the rest to stderr."""
    with connect() as client:
        sweep = client.submit_sweep(file)
        err.print(f"{sweep.name}, {sweep.total} jobs: {sweep.web}", highlight=False, markup=False, soft_wrap=True)
        if not as_json:
            out.print(sweep.id, highlight=False)
        if wait:
            sweep = sweep.wait()
        if as_json:
            print_json(sweep)
        elif wait:
            _show(sweep)
        raise typer.Exit(FAILED if wait and sweep.state != "succeeded" else 0)


@app.command()
def plan(file: SweepFile, as_json: AsJson = False) -> None:
    """Show how many jobs a sweep makes, and what they cost together. Nothing is stored."""
    from app import terminal

    with connect() as client:
        planned = client.plan_sweep(file)
    if as_json:
        return print_json(planned)
    rows = [
        (", ".join(f"{axis} {title}" for axis, title in job.values.items()), str(job.steps), str(job.new_steps))
        for job in planned.jobs
    ]
    terminal.print_table(out, ("Job", "Steps", "Of these new"), rows, planned.name)
    told = f"{planned.steps} steps, {planned.cached} of them in the store; {planned.shared} more without sharing."
    out.print(told, highlight=False)
    out.print(terminal.cost(planned.estimate, planned.steps - planned.cached, planned.steps), highlight=False)
    return terminal.warn(planned.warnings, out)


@app.command("list")
def list_sweeps(limit: Annotated[int, typer.Option(min=1, max=100)] = 20, as_json: AsJson = False) -> None:
    """List sweeps, newest first: one line a sweep."""
    from app import terminal

    with connect() as client:
        page = client.sweeps(limit=limit)
    if as_json:
        return print_json(page)
    rows = [
        (one.id, one.state, f"{one.ended} of {one.total}", one.name, ", ".join(axis.name for axis in one.axes))
        for one in page.data
    ]
    return terminal.print_table(out, ("Id", "State", "Jobs ended", "Name", "What varies"), rows)


@app.command()
def show(sweep_id: SweepId, student: Student = "", labels: Labels = "", as_json: AsJson = False) -> None:
    """Show the table of a sweep."""
    with connect() as client:
        made = client.sweep_table(sweep_id, student=student, labels=labels)  # refuses a student that no job has
        if as_json:
            print_json(made)
        else:
            _show(client.sweep(sweep_id), student, labels)


@app.command()
def cancel(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Cancel all jobs of a sweep that have not ended."""
    from app.views.sweeps import tally

    with connect() as client:
        ended = client.cancel_sweep(sweep_id)
    return print_json(ended) if as_json else out.print(tally(ended.jobs), highlight=False)


def _show(sweep: Sweep, student: str = "", labels: str = "") -> None:
    """A line a job; of each subject the last epoch with its spread, and the best epoch behind a stroke."""
    from app import terminal
    from app.views.sweeps import tally

    labels = labels or next(iter(sweep.labels), "")
    head = (*(axis.name for axis in sweep.axes), "State", *sweep.subjects)
    rows = []
    for cell in sweep.cells:
        found = _chosen(cell, student, labels)
        scores = [_text(found[subject]) if subject in found else "–" for subject in sweep.subjects]
        rows.append((*cell.values.values(), cell.state, *scores))
    title = f"{sweep.name}: top-1 on the real test set, last epoch / best on test, %"
    terminal.print_table(out, head, rows, title)
    out.print(tally(sweep.jobs), highlight=False)


def _chosen(cell: Cell, student: str, labels: str) -> dict[str, CellScore]:
    """Subject -> score by one student; by default the first that the job names."""
    asked = student or next((score.student for score in cell.scores), "")
    return {score.subject: score for score in cell.scores if (score.student, score.labels) == (asked, labels)}


def _text(score: CellScore) -> str:
    if score.mean is None or score.best_mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.1f}"
    return f"{score.mean:.1f}{spread} / {score.best_mean:.1f}"
