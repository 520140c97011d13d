"""`fadrm sweep`: submit, plan, list, show, cancel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from app.remote import FAILED, body_of, connect, err, out

if TYPE_CHECKING:
    from app.views import SweepOut
    from app.views.sweeps import CellScore

app = typer.Typer(help="Many jobs by one request: what varies, and what came of it.", no_args_is_help=True)
SweepFile = Annotated[
    Path, typer.Argument(help="A base (spec or preset) and axes, YAML or JSON.", exists=True, dir_okay=False)
]
SweepId = Annotated[str, typer.Argument(help="The sweep's id.", metavar="SWEEP")]
Student = Annotated[str, typer.Option(help="Whose accuracies; by default of each job the first student's.")]
Labels = Annotated[str, typer.Option(help="soft or hard; by default the first.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command()
def submit(
    file: SweepFile,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all jobs have ended, then show the table.")] = False,
) -> None:
    """Submit a sweep: all of its jobs, or none. Its id goes to stdout, the rest to stderr."""
    with connect() as client:
        sweep = client.submit_sweep(body_of(file, None))
        out.print(sweep.id, highlight=False)
        told = f"{sweep.name}, {sweep.total} jobs: {client.url}{sweep.urls['web']}"
        err.print(told, highlight=False, markup=False, soft_wrap=True)
        if wait:
            ended = client.wait_for_sweep(sweep.id)
            _show(ended)
            raise typer.Exit(0 if ended.state == "succeeded" else FAILED)


@app.command()
def plan(file: SweepFile) -> None:
    """Show how many jobs a sweep makes, and what they cost together. Nothing is stored."""
    with connect() as client:
        planned = client.plan_sweep(body_of(file, None))
    table = Table("Job", "Steps", "Of these new", title=escape(planned.name), title_justify="left")
    for job in planned.jobs:
        cell = ", ".join(f"{axis} {title}" for axis, title in job.values.items())
        table.add_row(escape(cell), str(job.steps), str(job.new_steps))
    out.print(table)
    told = f"{planned.steps} steps, {planned.cached} of them in the store; {planned.shared} more without sharing."
    out.print(told, highlight=False)
    out.print_json(planned.estimate.model_dump_json())
    for warning in planned.warnings:
        out.print(f"[yellow]![/] {escape(warning)}", highlight=False)


@app.command("list")
def list_sweeps(limit: Annotated[int, typer.Option(min=1, max=100)] = 20) -> None:
    """List sweeps, newest first."""
    table = Table(Column("Id", no_wrap=True, min_width=32), "Name", "State", "Jobs ended", "What varies")
    with connect() as client:
        for sweep in client.sweeps(limit=limit).data:
            axes = ", ".join(axis.name for axis in sweep.axes)
            table.add_row(sweep.id, escape(sweep.name), sweep.state, f"{sweep.ended} of {sweep.total}", escape(axes))
    out.print(table)


@app.command()
def show(sweep_id: SweepId, student: Student = "", labels: Labels = "", as_json: AsJson = False) -> None:
    """Show the table of a sweep."""
    with connect() as client:
        made = client.sweep_table(sweep_id, student=student, labels=labels)  # refuses a student that no job has
        if as_json:
            out.print_json(made.model_dump_json())
        else:
            _show(client.sweep(sweep_id), student, labels)


@app.command()
def cancel(sweep_id: SweepId) -> None:
    """Cancel all jobs of a sweep that have not ended."""
    from app.views.sweeps import tally

    with connect() as client:
        out.print(tally(client.cancel_sweep(sweep_id).jobs), highlight=False)


def _show(sweep: SweepOut, student: str = "", labels: str = "") -> None:
    """A line a job; of each subject the last epoch with its spread, and the best epoch behind a stroke."""
    from app.views.sweeps import chosen, tally

    labels = labels or next(iter(sweep.labels), "")
    title = f"{sweep.name}: top-1 on the real test set, last epoch / best epoch, %"
    table = Table(title=escape(title), title_justify="left")
    for name in (*(axis.name for axis in sweep.axes), "State", *sweep.subjects):
        table.add_column(escape(name))
    for cell in sweep.cells:
        found = chosen(cell, student, labels)
        scores = [_text(found[subject]) if subject in found else "–" for subject in sweep.subjects]
        table.add_row(*map(escape, cell.values.values()), cell.state, *scores)
    out.print(table)
    out.print(tally(sweep.jobs), highlight=False)


def _text(score: CellScore) -> str:
    if score.mean is None or score.best_mean is None:
        return "–"
    spread = "" if score.std is None else f" ± {score.std:.1f}"
    return f"{score.mean:.1f}{spread} / {score.best_mean:.1f}"
