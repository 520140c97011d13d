"""`fadrm upload`, `fadrm datasets` and `fadrm teachers`: what a server has to distil, and to teach with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from app.remote import AsJson, connect, err, out, print_json
from fadrm.errors import Refused

datasets = typer.Typer(help="Data sets that jobs may use.", no_args_is_help=True)
teachers = typer.Typer(help="Teachers that are in the store.", no_args_is_help=True)


def upload(
    archive: Annotated[
        Path, typer.Argument(help="A zip of class folders.", metavar="ZIP", exists=True, dir_okay=False)
    ],
    title: Annotated[str | None, typer.Option(help="For people; by default the file's name.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, at most one in a hundred.")
    ] = False,
) -> None:
    """Send images as a data set; after a break the same command goes on.

    What to write in a spec goes to stdout, the rest to stderr.
    """
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), DownloadColumn(), TransferSpeedColumn())
    with (
        connect() as client,
        Progress(*columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal) as progress,
    ):
        task = progress.add_task("Sending", total=archive.stat().st_size)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, description="Reading" if done == total else "Sending")

        try:
            made = client.upload(archive, title, skip_bad=skip_bad, told=told)
        except Refused as refused:
            for file in refused.problem.details.get("files", []):
                err.print(f"  {file['name']}: {file['reason']}", highlight=False, markup=False, soft_wrap=True)
            raise
    out.print(json.dumps(made.dataset), highlight=False, soft_wrap=True)
    images = f"{sum(made.train_per_class):,} images for training, {sum(made.test_per_class):,} for testing"
    err.print(f"{made.title}: {len(made.classes)} classes, {images}", highlight=False, markup=False, soft_wrap=True)
    if made.skipped:
        err.print(f"{made.skipped:,} images cannot be read and were left out.", highlight=False)


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List them: built in, uploaded, and folders that the server allows."""
    with connect() as client:
        found = client.datasets()
    if as_json:
        print_json(found)
        return
    table = Table("Title", "Classes", "Note", "In a spec")
    for one in found:
        spec = json.dumps(
            {name: value for name, value in one.dataset.items() if name in {"source", "name", "path", "id"}}
        )
        table.add_row(one.title, "?" if one.classes is None else str(one.classes), one.note, spec)
    out.print(table)


@datasets.command("remove")
def remove_dataset(
    upload_id: Annotated[str, typer.Argument(help="Of an upload of yours.", metavar="ID")],
) -> None:
    """Remove an uploaded data set, unless a job that has not ended uses it."""
    with connect() as client:
        client.request("DELETE", f"/datasets/{upload_id}")
    out.print("Removed.", highlight=False)


@teachers.command("list")
def list_teachers(as_json: AsJson = False) -> None:
    """List them, the newest first: a job that asks for one of these trains none."""
    with connect() as client:
        found = client.request("GET", "/teachers")
    if as_json:
        print_json(found)
        return
    table = Table("Network", "Data set", "Side", "Top-1, %", "Epochs", "Used by")
    for one in found:
        dataset = one["dataset"]
        named = dataset.get("path") or dataset.get("name") or dataset["source"]
        figures = (one["resolution"], None if one["top1_pct"] is None else f"{one['top1_pct']:.1f}", one["epochs"])
        table.add_row(
            one["network"], named, *("–" if value is None else str(value) for value in figures), str(len(one["jobs"]))
        )
    out.print(table)
