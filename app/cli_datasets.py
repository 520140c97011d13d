"""`fadrm upload`, `fadrm datasets` and `fadrm teachers`: what a server has to distil, and to teach with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from app.remote import AsJson, connect, err, out, print_json
from fadrm.errors import ClientError, Refused
from fadrm.uploading import Told

datasets = typer.Typer(help="Data sets that jobs may use.", no_args_is_help=True)
teachers = typer.Typer(help="Teachers that are in the store, and weights that were sent.", no_args_is_help=True)


def upload(
    archive: Annotated[Path, typer.Argument(help="A zip of class folders.", metavar="ZIP", exists=True)],
    title: Annotated[str | None, typer.Option(help="For people; by default the file's name.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, at most one in a hundred.")
    ] = False,
) -> None:
    """Send images as a data set; after a break the same command goes on.

    What to write in a spec goes to stdout, the rest to stderr.
    """
    if archive.is_dir():
        folder = shlex.quote(str(archive))
        raise ClientError(
            f"{archive} is a folder.", f"Make a zip of it: python -m zipfile -c {folder}.zip {folder}/, then send that."
        )
    with connect() as client, _shown(archive) as told:
        try:
            made = client.upload(archive, title, skip_bad=skip_bad, told=told)
        except Refused as refused:
            files = refused.problem.details.get("files", [])
            for file in files if len(files) > 1 else ():  # of one the error itself tells
                err.print(f"  {file['name']}: {file['reason']}", highlight=False, markup=False, soft_wrap=True)
            raise
    out.print(json.dumps({name: made.dataset[name] for name in ("source", "id")}), highlight=False, soft_wrap=True)
    images = f"{sum(made.train_per_class):,} images for training, {sum(made.test_per_class):,} for testing"
    err.print(f"{made.title}: {len(made.classes)} classes, {images}", highlight=False, markup=False, soft_wrap=True)
    if made.skipped:
        err.print(f"{made.skipped:,} images cannot be read and were left out.", highlight=False)


@contextmanager
def _shown(path: Path) -> Iterator[Told]:
    """A bar of how much of a file is sent."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=err, transient=True, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task("Sending", total=path.stat().st_size)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, description="Reading" if done == total else "Sending")

        yield told


@datasets.command("list")
def list_datasets(as_json: AsJson = False) -> None:
    """List them: built in, uploaded, and folders that the server allows."""
    from app import terminal

    with connect() as client:
        found = client.datasets()
    if as_json:
        return print_json(found)
    rows = []
    for one in found:
        spec = {name: value for name, value in one.dataset.items() if name in {"source", "name", "path", "id"}}
        rows.append((one.title, "?" if one.classes is None else str(one.classes), one.note, json.dumps(spec)))
    return terminal.print_table(out, ("Title", "Classes", "Note", "In a spec"), rows)


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
    from app import terminal

    with connect() as client:
        found = client.request("GET", "/teachers")
    if as_json:
        return print_json(found)
    rows = []
    for one in found:
        dataset = one["dataset"]
        named = dataset.get("path") or dataset.get("name") or dataset["source"]
        figures = (one["resolution"], None if one["top1_pct"] is None else f"{one['top1_pct']:.1f}", one["epochs"])
        shown = ("–" if value is None else str(value) for value in figures)
        rows.append((one["network"], named, *shown, str(len(one["jobs"]))))
    return terminal.print_table(out, ("Network", "Data set", "Side", "Top-1, %", "Epochs", "Used by"), rows)


@teachers.command("upload")
def upload_teacher(
    file: Annotated[
        Path,
        typer.Argument(help="A .safetensors file of trained weights.", metavar="FILE", exists=True, dir_okay=False),
    ],
    network: Annotated[str, typer.Option(help="Whose weights they are, as a spec names it: resnet18, ...")],
    title: Annotated[str | None, typer.Option(help="For people; by default the file's name.")] = None,
    visibility: Annotated[
        str | None, typer.Option(help="Who sees and uses them besides you: private, team or all.")
    ] = None,
) -> None:
    """Send weights to teach with; after a break the same command goes on.

    What to write in a spec goes to stdout, the rest to stderr. `python -m engine.convert` makes such a file of a .pth file.
    """
    with connect() as client, _shown(file) as told:
        made = client.upload_teacher(file, network, title, told=told)
        if visibility is not None:
            client.request("PATCH", f"/weights/{made.id}", json={"visibility": visibility})
    out.print(json.dumps(made.teacher), highlight=False, soft_wrap=True)
    fits = f"{made.network} for {made.classes:,} classes and images {made.sides}"
    err.print(f"{made.title}: {fits}", highlight=False, markup=False, soft_wrap=True)


@teachers.command("sent")
def list_sent_teachers(as_json: AsJson = False) -> None:
    """List the weights that were sent, the newest first."""
    from app import terminal

    with connect() as client:
        found = client.request("GET", "/weights")
    if as_json:
        return print_json(found)
    rows = []
    for one in found:
        seen = (one["title"], one["network"], str(one["classes"]), one["sides"], one["owner"], one["visibility"])
        rows.append((*seen, json.dumps(one["teacher"])))
    head = ("Title", "Network", "Classes", "Images", "Owner", "Seen by", "In a spec")
    return terminal.print_table(out, head, rows)


@teachers.command("remove")
def remove_teacher(
    upload_id: Annotated[str, typer.Argument(help="Of weights that you sent.", metavar="ID")],
) -> None:
    """Remove weights that were sent, unless a job that has not ended uses them."""
    with connect() as client:
        client.request("DELETE", f"/weights/{upload_id}")
    out.print("Removed.", highlight=False)
