"""The commands that speak to a server: the one that FADRM_URL and FADRM_TOKEN name, or the one of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fadrm.errors import ClientError, Refused

if TYPE_CHECKING:
    from fadrm import Client, Job

FAILED, INTERRUPTED = 1, 130
out = Console()
err = Console(stderr=True)

Preset = Annotated[str | None, typer.Option(help="Name of a preset, instead of a file.")]
SpecFile = Annotated[Path | None, typer.Argument(help="The job's spec, YAML or JSON.", exists=True, dir_okay=False)]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, in the shape of the API.")]


def register(app: typer.Typer) -> None:
    """Add these commands to a program."""
    for name, command in COMMANDS.items():
        app.command(name)(command)


def submit(
    file: SpecFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show it until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job. Its id goes to stdout, the rest to stderr."""
    _one_of(file, preset)
    with connect() as client:
        job = client.submit(file, preset=preset, name=name)
        if as_json and not wait:
            print_json(job)
        elif not as_json:
            out.print(job.id, highlight=False)
        err.print(f"{job.name}: {job.web}", highlight=False, markup=False, soft_wrap=True)
        if wait:
            _watch(client, job, as_json)


def plan(file: SpecFile = None, preset: Preset = None, as_json: AsJson = False) -> None:
    """Show what a job would do and cost. Nothing is stored."""
    from app import terminal

    _one_of(file, preset)
    with connect() as client:
        planned = client.plan(file, preset=preset)
    if as_json:
        return print_json(planned)
    terminal.show_plan(planned, out)
    given = f"--preset {preset}" if preset else str(file)
    return out.print(f"Submit it: fadrm submit {given}", highlight=False, markup=False, soft_wrap=True)


def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only in this state (may be given again).")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only mine.")] = False,
    text: Annotated[str, typer.Option("--search", help="Only with this in the name.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first: one line a job."""
    from app import terminal

    with connect() as client:
        page = client.jobs(limit=limit, state=state, owner="me" if mine else None, q=text)
    if as_json:
        return print_json(page)
    rows = [(job.id, job.state, f"{job.progress:.0%}", job.name, job.sentence) for job in page.data]
    return terminal.print_table(out, ("Id", "State", "Done", "Name", "Now"), rows)


def watch(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job until it has ended: bars and live numbers. --json: its events, a line each."""
    with connect() as client:
        _watch(client, client.job(job_id), as_json)


def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job has ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Print the log of a job."""
    with connect() as client:
        for line in client.log(job_id, follow=follow):
            step = f"{line.step}: " if line.step else ""
            told = f"{line.at:%Y-%m-%d %H:%M:%S}  {line.level:<7}  {step}{line.message}"
            out.print(line.model_dump_json() if as_json else told, highlight=False, markup=False, soft_wrap=True)


def spec(job_id: JobId, as_json: AsJson = False) -> None:
    """Print the whole spec of a job as YAML, to be edited and submitted again."""
    import yaml

    with connect() as client:
        found = client.spec(job_id)
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip()
    return print_json(found) if as_json else out.print(text, highlight=False, markup=False, soft_wrap=True)


def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    _control("cancel", job_id, as_json)


def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Pause a job: what runs leaves a checkpoint, and its worker is free."""
    _control("pause", job_id, as_json)


def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on."""
    _control("resume", job_id, as_json)


def retry(job_id: JobId, as_json: AsJson = False) -> None:
    """Try a failed or cancelled job again; its whole steps stay."""
    _control("retry", job_id, as_json)


def compare(
    job_ids: Annotated[list[str], typer.Argument(help="Two jobs or more.", metavar="JOB JOB...")],
    as_json: AsJson = False,
) -> None:
    """Compare jobs: what differs in their specs, then their accuracies."""
    from app import terminal

    with connect() as client:
        made = client.compare(*job_ids)
    return print_json(made) if as_json else terminal.show_comparison(made, out)


def download(
    job_id: JobId,
    folder: Annotated[Path, typer.Option("--to", help="Where to put the files.", file_okay=False)] = Path(),
    name: Annotated[list[str] | None, typer.Option(help="Only this file (may be given again).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Names, paths, sizes and hashes as JSON.")] = False,
) -> None:
    """Download what a job made, going on where an earlier download broke off; the SHA-256 is checked."""
    with connect() as client:
        there = client.files(job_id).data
        files = [file for file in there if not name or file.name in name]
        if not files:
            known = f"It has {', '.join(file.name for file in there)}." if there else "It has none before it succeeds."
            raise ClientError(f"{job_id} has no such files.", known)
        got = []
        for file in files:
            path = str(_fetched(client, file, folder))
            got.append({"name": file.name, "path": path, "size_bytes": file.size_bytes, "sha256": file.sha256})
            if not as_json:
                out.print(path, highlight=False, soft_wrap=True)
    if as_json:
        print_json(got)


def link(
    job_id: JobId,
    name: Annotated[str | None, typer.Option(help="Of the file; by default the zip.")] = None,
    hours: Annotated[float, typer.Option(help="How long it works.", min=0.01)] = 24.0,
    as_json: Annotated[bool, typer.Option("--json", help="With name, size, hash and end as JSON.")] = False,
) -> None:
    """Print a link to a file of a job, which whoever has it can follow without a login, for a while."""
    with connect() as client:
        made = client.link(job_id, name, hours=hours)
    if as_json:
        print_json(made)
        return
    out.print(made.url, highlight=False, markup=False, soft_wrap=True)
    err.print(f"It works until {made.expires_at:%Y-%m-%d %H:%M} UTC, and for anybody.", highlight=False)


def export(
    job_id: JobId,
    form: Annotated[str, typer.Argument(help="parquet, webdataset, uint8, normalised or fkd.")],
    ipc: Annotated[int | None, typer.Option(help="Images per class, of a nested download.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it is written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a finished job's download written in another form; nothing is distilled again."""
    with connect() as client:
        if wait:
            client.export(job_id, form, ipc=ipc)
        made = client.ask_export(job_id, form, ipc=ipc)
    if as_json:
        print_json(made)
    elif made.artifact is None:
        out.print(f"{made.job} writes it; --wait waits for that.", highlight=False, soft_wrap=True)
    else:
        out.print(f"fadrm download {job_id} --name {made.artifact.name}", highlight=False, markup=False, soft_wrap=True)


COMMANDS: dict[str, Callable[..., None]] = {
    "submit": submit,
    "plan": plan,
    "list": list_jobs,
    "watch": watch,
    "logs": logs,
    "spec": spec,
    "cancel": cancel,
    "pause": pause,
    "resume": resume,
    "retry": retry,
    "compare": compare,
    "download": download,
    "export": export,
    "link": link,
}


def tell(console: Console, error: ClientError) -> None:
    """An error as a sentence, its fields, and a hint."""
    console.print("[bold red]✘[/]", escape(error.sentence), highlight=False, soft_wrap=True)
    fields = error.problem.errors if isinstance(error, Refused) else []
    for field in fields:
        where = field.pointer or field.parameter
        sentence = f" {field.detail} {field.hint}".rstrip() if len(fields) > 1 else ""
        if where:
            console.print(f"  at {where}{':' if sentence else ''}{sentence}", highlight=False, markup=False)
    if error.hint:
        console.print(f"  {error.hint}", highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """An answer of the API on stdout."""
    from app import terminal

    terminal.print_json(out, value)


def connect() -> Client:
    """A client of the server that the environment names, or of this machine's."""
    from fadrm import Client

    return Client()


def _one_of(file: Path | None, preset: str | None) -> None:
    if (file is None) == (preset is None):
        raise typer.BadParameter("give either a file or --preset")


def _control(action: str, job_id: str, as_json: bool) -> None:
    with connect() as client:
        job = getattr(client, action)(job_id)
    if as_json:
        print_json(job)
    else:
        out.print(job.sentence, highlight=False, markup=False, soft_wrap=True)


def _watch(client: Client, job: Job, as_json: bool) -> None:
    from app import terminal
    from fadrm.progress import follow

    try:
        if as_json:
            for event in job.events():
                out.print(event.model_dump_json(), highlight=False, markup=False, soft_wrap=True)
            ended = job.refresh()
        else:
            ended = follow(client, job.id, out)
            terminal.show_outcome(client, ended, out)
    except KeyboardInterrupt:
        err.print(f"The job goes on: fadrm watch {job.id} shows it again.", highlight=False)
        raise typer.Exit(INTERRUPTED) from None
    if ended.state != "succeeded":
        raise typer.Exit(FAILED)


def _fetched(client: Client, file: Any, folder: Path) -> Path:
    """A file, with a bar where somebody sees it."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(file.name, total=file.size_bytes)
        path: Path = client.fetch(file, folder, lambda have: bar.update(task, completed=have))
        return path
