"""`fadrm results`: suites of runs that measure what the papers claim, from their cost to tables and films."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.remote import AsJson, err, out, print_json
from fadrm.errors import ClientError

if TYPE_CHECKING:
    from app.results.rows import ResultRow
    from app.results.runner import Server
    from app.results.suites import Run, Suite

UNFINISHED = 1
ROWS, PAGE = Path("docs/results"), Path("docs/results.md")
app = typer.Typer(help="The papers' tables, measured: suites of sweeps, and what came of them.", no_args_is_help=True)
SuiteName = Annotated[str, typer.Argument(help="`fadrm results list` names them.", metavar="SUITE")]
Data = Annotated[
    Path | None, typer.Option(help="Folder on the server that holds the data sets, below one of its data roots.")
]
Rows = Annotated[Path, typer.Option(help="Where the rows are, one JSON file each.", file_okay=False)]


@app.command("list")
def list_suites(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """List the suites, their sweeps, and how many of their rows are there."""
    from app import terminal
    from app.results.rows import load
    from app.results.suites import SUITES

    rows = load(ROWS)
    found = [
        {
            "suite": suite.name,
            "sweep": run.name,
            "jobs": run.jobs,
            "rows": len(rows.get(run.name, [])),
            "title": run.title,
        }
        for suite in SUITES.values()
        for run in suite.runs
    ]
    if as_json:
        return print_json(found)
    lines = [[str(value) for value in one.values()] for one in found]
    return terminal.print_table(out, ("Suite", "Sweep", "Jobs", "Rows here", "What it is"), lines)


@app.command()
def plan(suite: SuiteName, data: Data = None, as_json: AsJson = False) -> None:
    """Say what a suite would cost on this server: jobs, hours, bytes. Nothing is stored."""
    from app import terminal

    found = _suite(suite)
    with _server() as client:
        plans = [client.plan_sweep(run.body(_data(run, data))) for run in found.runs]
    if as_json:
        return print_json(plans)
    rows, sums = [], [0.0, 0.0, 0.0]
    for run, planned in zip(found.runs, plans, strict=True):
        estimate = planned.estimate
        costs = [estimate.seconds["gpu"] / 3600, estimate.seconds["cpu"] / 3600, estimate.size_bytes / 1e9]
        sums = [total + cost for total, cost in zip(sums, costs, strict=True)]
        counts = map(str, (len(planned.jobs), planned.steps, planned.cached))
        rows.append((run.name, *counts, *(f"{cost:.1f}" for cost in costs)))
    rows.append(("together", "", "", "", *(f"{total:.1f}" for total in sums)))
    head = ("Sweep", "Jobs", "Steps", "In the store", "GPU-hours", "CPU-hours", "GB")
    terminal.print_table(out, head, rows)
    return terminal.warn(dict.fromkeys(warning for planned in plans for warning in planned.warnings), out)


@app.command()
def run(
    suite: SuiteName,
    data: Data = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Pause what is left after so long; the same command goes on.")
    ] = None,
) -> None:
    """Run a suite on this server, or go on with it. What is done stays done; Ctrl-C leaves it running."""
    from app.results import runner

    found = _suite(suite)
    folders = {_data(one, data) for one in found.runs}
    with _server() as client:
        told = lambda words: err.print(words, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
        is_done = runner.run(client, found, folders.pop(), minutes=minutes, told=told)
    raise typer.Exit(0 if is_done else UNFINISHED)


@app.command()
def collect(
    suite: SuiteName,
    into: Rows = ROWS,
    commit: Annotated[str, typer.Option(help="Of the server's code; by default this checkout's.")] = "",
    machine: Annotated[str, typer.Option(help="What the workers run on; by default what they say.")] = "",
    sweep: Annotated[
        list[str] | None, typer.Option(help="RUN=ID: of this sweep, not of the newest that is the suite's.")
    ] = None,
) -> None:
    """Write a row for each job of a suite that has succeeded on this server. Rows that are there are replaced."""
    from app.results.rows import collected, save, sweep_of

    found, named = _suite(suite), dict(_pair(text) for text in sweep or ())
    commit = commit or _commit()
    with _server() as client:
        machine = machine or _machine(client)
        for one in found.runs:
            sweep_id = named.get(one.name) or sweep_of(client.read, one)
            if sweep_id is None:
                err.print(f"{one.name}: this server has no such sweep.", highlight=False)
                continue
            try:
                rows = list(collected(client.read, sweep_id, one, commit, machine))
            except ValueError as error:
                raise ClientError(f"{error}.", f"Name another sweep: --sweep {one.name}=ID.") from error
            for row in rows:
                out.print(str(save(row, into)), highlight=False, soft_wrap=True)
            err.print(f"{one.name}: {len(rows)} of {one.jobs} rows, of {sweep_id}.", highlight=False, soft_wrap=True)


@app.command()
def draw(
    page: Annotated[Path, typer.Option(help="The page with the marks.", exists=True, dir_okay=False)] = PAGE,
    rows: Rows = ROWS,
) -> None:
    """Draw the tables and plots of the page from the rows alone."""
    from app.results import draw as drawing
    from app.results.rows import load

    try:
        written = drawing.draw(page, load(rows))
    except ValueError as error:
        raise ClientError(f"{error}.", "Give each run a place: <!-- results: RUN --> and <!-- end -->.") from error
    for path in written:
        out.print(str(path), highlight=False, soft_wrap=True)


@app.command()
def artifact(
    row: Annotated[str, typer.Argument(help="A row, such as cpu-cifar10/ipc-10-method-fadrm.", metavar="ROW")],
    to: Annotated[Path, typer.Option(help="Folder for the files.", file_okay=False)] = Path("release"),
) -> None:
    """Make what a release shows of a row: its set, its film, its figures, and their checksums."""
    from app.results.film import film
    from app.results.rows import written

    with _server() as client:
        job_id, found = _job_of(client, row)
        folder = to / found.name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        files = [client.download_package(job_id, folder)]
        sheets = _sheets(client, job_id)
        if sheets:
            files.append(folder / "film.webp")
            files[-1].write_bytes(film(sheets))
        files.append(folder / "row.json")
        files[-1].write_text(written(found))
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    for file in (*files, sums):
        out.print(str(file), highlight=False, soft_wrap=True)
    if not sheets:
        err.print("There is no film: this method optimises nothing.", highlight=False)


def _server() -> Server:
    from app.results.runner import Server

    return Server()


def _suite(name: str) -> Suite:
    from app.results.suites import SUITES

    if name not in SUITES:
        raise ClientError(f"There is no suite {name!r}.", f"Choose one of {', '.join(SUITES)}.")
    return SUITES[name]


def _data(run: Run, data: Path | None) -> Path:
    if run.data is not None and data is None:
        raise ClientError(
            f"{run.name} needs real images.", f"Give --data FOLDER, on the server, that holds {run.data}/."
        )
    return (data or Path()).absolute()


def _pair(text: str) -> tuple[str, str]:
    name, _, sweep_id = text.partition("=")
    if not sweep_id:
        raise ClientError(f"{text!r} names no sweep.", "Write RUN=ID, such as cpu-cifar10=swp_....")
    return name, sweep_id


def _commit() -> str:
    git = shutil.which("git")
    here = Path(__file__).parent
    done = subprocess.run(
        [git or "git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ClientError("The commit of the server's code is not known.", "Give --commit.")
    return done.stdout.strip()


def _machine(client: Server) -> str:
    names = [worker.device_name or worker.device for worker in client.workers() if worker.online]
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "unknown"


def _job_of(client: Server, name: str) -> tuple[str, ResultRow]:
    """Id of the job of a row, and the row as it is now."""
    from app.results.rows import collected, sweep_of
    from app.results.suites import RUNS

    run = RUNS.get(name.partition("/")[0])
    sweep_id = sweep_of(client.read, run[1]) if run else None
    if run is None or sweep_id is None:
        raise ClientError(f"This server has no row {name!r}.", "A row is SWEEP/VALUES, as its file is called.")
    rows = {row.name: row for row in collected(client.read, sweep_id, run[1], _commit(), _machine(client))}
    if name not in rows:
        raise ClientError(f"{name!r} has not succeeded here.", f"These have: {', '.join(rows) or 'none'}.")
    cells = client.sweep(sweep_id).cells
    return next(cell.job_id for cell in cells if cell.values == rows[name].values), rows[name]


def _sheets(client: Server, job_id: str) -> list[tuple[int, int, bytes]]:
    """(Iteration, iterations, PNG) of the first shard that was recovered."""
    steps = client.read(f"/jobs/{job_id}/previews")["data"]
    shards = [step["previews"] for step in steps if step["kind"] == "recover"]
    return [(sheet["x"], sheet["total"], client.picture(sheet["sha256"])) for sheet in (shards or [[]])[0]]
