"""The commands that speak to a server: the one that FADRM_URL and FADRM_TOKEN name, or the one of this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from app.settings import load
from app.trouble import ClientError, Refused, Unreachable

if TYPE_CHECKING:
    from app.client import Client
    from app.views import JobOut

FAILED = 1
DEEPEST = 20  # levels of a file that are searched for what is wrong; no spec has as many
out = Console()
err = Console(stderr=True)

Preset = Annotated[str | None, typer.Option(help="Name of a preset, instead of a file.")]
SpecFile = Annotated[Path | None, typer.Argument(help="The job's spec, YAML or JSON.", exists=True, dir_okay=False)]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


def register(app: typer.Typer) -> None:
    """Add these commands to a program."""
    for name, command in COMMANDS.items():
        app.command(name)(command)


def submit(
    file: SpecFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show it until it has ended.")] = False,
) -> None:
    """Submit a job. Its id goes to stdout, the rest to stderr."""
    body = body_of(file, preset) | ({"name": name} if name else {})
    with connect() as client:
        job = client.submit(body)
        out.print(job.id, highlight=False)
        err.print(f"{job.name}: {client.url}{job.urls['web']}", highlight=False, markup=False, soft_wrap=True)
        if wait:
            _watch(client, job)


def plan(file: SpecFile = None, preset: Preset = None) -> None:
    """Show what a job would do and cost. Nothing is stored."""
    with connect() as client:
        planned = client.plan(body_of(file, preset))
    table = Table("Step", "What", "State", title=escape(planned.name), title_justify="left")
    for step in planned.steps:
        table.add_row(str(step.kind), step.title, "found in the store" if step.cached else "to do")
    out.print(table)
    out.print_json(planned.estimate.model_dump_json())
    for warning in planned.warnings:
        out.print(f"[yellow]![/] {escape(warning)}", highlight=False)


def list_jobs(limit: Annotated[int, typer.Option(min=1, max=100)] = 20) -> None:
    """List jobs, newest first."""
    table = Table(Column("Id", no_wrap=True, min_width=32), "Name", "State", "Now")  # an id that is cut is no id
    with connect() as client:
        for job in client.jobs(limit=limit).data:
            table.add_row(job.id, escape(job.name), job.state, escape(job.sentence))
    out.print(table)


def watch(job_id: JobId) -> None:
    """Show a job until it has ended."""
    with connect() as client:
        _watch(client, client.job(job_id))


def cancel(job_id: JobId) -> None:
    """Cancel a job."""
    with connect() as client:
        out.print(client.cancel(job_id).sentence, highlight=False, markup=False)


def pause(job_id: JobId) -> None:
    """Pause a job: what runs leaves a checkpoint, and its worker is free."""
    with connect() as client:
        out.print(client.pause(job_id).sentence, highlight=False, markup=False)


def resume(job_id: JobId) -> None:
    """Let a paused job go on."""
    with connect() as client:
        out.print(client.resume(job_id).sentence, highlight=False, markup=False)


def retry(job_id: JobId) -> None:
    """Try a failed or cancelled job again; its whole steps stay."""
    with connect() as client:
        out.print(client.retry(job_id).sentence, highlight=False, markup=False)


def download(
    job_id: JobId,
    folder: Annotated[Path, typer.Option("--to", help="Where to put the files.", file_okay=False)] = Path(),
    name: Annotated[list[str] | None, typer.Option(help="Only this file (may be given again).")] = None,
) -> None:
    """Download what a job made, going on where an earlier download broke off; the SHA-256 is checked."""
    with connect() as client:
        files = [file for file in client.artifacts(job_id).data if not name or file.name in name]
        if not files:
            raise ClientError(f"{job_id} has no such files.", "A job has files when it has succeeded.")
        for file in files:
            out.print(str(client.download(job_id, file.name, folder)), highlight=False, soft_wrap=True)


def upload(
    archive: Annotated[
        Path, typer.Argument(help="A zip of class folders.", metavar="ZIP", exists=True, dir_okay=False)
    ],
    title: Annotated[str | None, typer.Option(help="For people; by default the file's name.")] = None,
) -> None:
    """Send images as a data set. What to write in a spec goes to stdout, the rest to stderr."""
    with connect() as client:
        made = client.upload(archive, title or archive.stem[:80])
    out.print(json.dumps({"source": "upload", "id": made.id}), highlight=False, soft_wrap=True)
    images = f"{sum(made.train_per_class):,} images for training, {sum(made.test_per_class):,} for testing"
    err.print(f"{made.title}: {len(made.classes)} classes, {images}", highlight=False, markup=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "submit": submit,
    "plan": plan,
    "list": list_jobs,
    "watch": watch,
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "retry": retry,
    "download": download,
    "upload": upload,
}


def tell(console: Console, error: ClientError) -> None:
    """An error as a sentence, its fields, and a hint."""
    console.print("[bold red]✘[/]", escape(str(error)), highlight=False, soft_wrap=True)
    fields = error.problem.errors if isinstance(error, Refused) else []
    for field in fields:
        where = field.pointer or field.parameter
        sentence = f" {field.detail} {field.hint}".rstrip() if len(fields) > 1 else ""
        if where:
            console.print(f"  at {where}{':' if sentence else ''}{sentence}", highlight=False, markup=False)
    if error.hint:
        console.print(f"  {error.hint}", highlight=False, markup=False, soft_wrap=True)


def _watch(client: Client, job: JobOut) -> None:
    from app import terminal

    ended = terminal.follow(client, job.id, out)
    terminal.show_outcome(client, ended, out)
    if ended.state != "succeeded":
        raise typer.Exit(FAILED)


def body_of(file: Path | None, preset: str | None) -> dict[str, Any]:
    """What is sent: a preset's name, or a file that holds a spec or a whole request."""
    import yaml

    if (file is None) == (preset is None):
        raise typer.BadParameter("give either a file or --preset")
    if file is None:
        return {"preset": preset}
    try:
        value = json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text())
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ClientError(f"{file} cannot be read: {error}", "It should be a spec as YAML or JSON.") from error
    if not isinstance(value, dict):
        raise ClientError(f"{file} holds no spec.", "It should be a mapping of fields to values.")
    _check_json(value, file)
    return value if {"spec", "preset"} & value.keys() else {"spec": value}


def _check_json(value: dict[Any, Any], file: Path) -> None:
    """Raises ClientError when a file holds what JSON cannot say: YAML has dates, sets, and numbers that are none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        place = next(_odd_places(value), "")
        where = f" at {place}" if place else f": {error}"
        hint = "Write text and dates in quotes, and numbers as digits."
        raise ClientError(f"{file} holds what a spec cannot hold{where}.", hint) from error


def _odd_places(value: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """Where values are that JSON does not have, as pointers with the value."""
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in inside if depth < DEEPEST else ():
            yield from _odd_places(inner, f"{place}/{key}", depth + 1)
    elif not isinstance(value, str | int | None) and not (isinstance(value, float) and math.isfinite(value)):
        yield f"{place} ({value})"


def connect() -> Client:
    from app import local
    from app.client import Client

    settings = load()
    known = local.read_connection(settings.home.expanduser())
    url = settings.url or (known.url if known else "")
    token = settings.token.get_secret_value() or (known.token if known and url == known.url else "")
    if not url:
        raise Unreachable("There is no server to ask.", "Start one with `fadrm up`, or set FADRM_URL and FADRM_TOKEN.")
    return Client(url, token)
