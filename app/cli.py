"""`fadrm`: start a server, and speak to one. Exit codes: 0 done, 1 the job did not succeed, 2 wrong usage, 3 refused, 4 no answer."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from app import auth, doctor, local, logs, migrate, redis_server, services, terminal, up
from app.client import Client, ClientError, Unreachable
from app.errors import ServiceError
from app.main import create_app, server
from app.models import Token, User
from app.settings import Settings
from app.views import JobOut

FAILED, REFUSED, NO_ANSWER = 1, 3, 4
app = typer.Typer(
    name="fadrm",
    help="Distil image data sets with FADRM. Begin with: fadrm up --demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokens = typer.Typer(help="API tokens, straight in the database of this machine's server.", no_args_is_help=True)
app.add_typer(tokens, name="token")
out = Console()
err = Console(stderr=True)

Home = Annotated[Path | None, typer.Option(help="Folder that holds everything the server writes (FADRM_HOME).")]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]
Preset = Annotated[str | None, typer.Option(help="Name of a preset, instead of a file.")]
SpecFile = Annotated[Path | None, typer.Argument(help="The job's spec, YAML or JSON.", exists=True, dir_okay=False)]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]


def main() -> None:
    """The entry point: every error that was foreseen is a sentence and an exit code."""
    try:
        app()
    except Unreachable as error:
        terminal.tell(err, error)
        sys.exit(NO_ANSWER)
    except ClientError as error:
        terminal.tell(err, error)
        sys.exit(REFUSED)
    except ServiceError as error:
        terminal.tell(err, ClientError(error.detail, error.hint))
        sys.exit(REFUSED)
    except (up.CannotStart, redis_server.NoRedis) as error:
        terminal.tell(err, ClientError(str(error)))
        sys.exit(FAILED)


@app.command("up")
def start_all(
    demo: Annotated[bool, typer.Option("--demo", help="Also submit a small job and show it.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the demo, with its outcome as exit code.")] = False,
    home: Home = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="By default one a GPU, or one for the CPU.")
    ] = None,
) -> None:
    """Start everything on this machine: Redis, workers, API. Ctrl-C stops it all."""
    settings = _settings(home)
    up.check_host(settings, host)
    up.make_home(settings.home)
    with up.Lock(settings.home):
        free = up.free_port(host, port)
        if free != port:
            out.print(f"[yellow]![/] Port {port} is taken: using {free}.", highlight=False)
        running = up.Server(settings=settings, host=host, port=free, devices=up.choose_devices(workers), console=out)
        up.listen(running.stop)
        outcome = _Outcome()
        try:
            running.prepare()
            running.start()
            if not running.is_stopping:
                _greet(running, settings)
                if demo:
                    connection = local.connect(settings, running.url)
                    _in_background(lambda: _demo(connection, settings, outcome), running, stop_after=leave)
            running.keep_alive()
        finally:
            out.print("Stopping ...", highlight=False)
            running.end()
    raise typer.Exit(outcome.code if demo and leave else 0)


@app.command()
def serve(home: Home = None, host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Start the API alone. Workers, Redis and migrations are started elsewhere."""
    settings = _with_running_redis(_settings(home))
    up.check_host(settings, host)
    logs.configure()
    built = services.build(settings)
    try:
        server(create_app(built), host=host, port=port).run()
    finally:
        built.close()


@app.command()
def worker(
    home: Home = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda:<number> (FADRM_DEVICE).")] = None,
) -> None:
    """Start one worker: a Celery process that carries steps on one device. SIGTERM drains it."""
    settings = _with_running_redis(_settings(home))
    if not settings.redis_url:
        raise up.CannotStart("There is no Redis: start `fadrm up` on this machine, or set FADRM_REDIS_URL.")
    environment = os.environ | {
        "FADRM_HOME": str(settings.home),
        "FADRM_REDIS_URL": settings.redis_url,
        "FADRM_DEVICE": device or settings.device,
    }
    words = ["-m", "celery", "-A", "worker.tasks", "worker", "-P", "solo", "--without-gossip", "--without-mingle"]
    os.execve(sys.executable, [sys.executable, *words, "-l", "INFO"], environment)  # noqa: S606 - becomes the worker


@app.command("migrate")
def migrate_database(home: Home = None) -> None:
    """Bring the database to the newest schema."""
    settings = _settings(home)
    if not settings.database_url:
        up.make_home(settings.home)
    migrate.upgrade(settings.database)
    out.print(f"The database is at {migrate.newest()}.", highlight=False)


@app.command()
def login(home: Home = None) -> None:
    """Print a new link that logs an administrator in, once."""
    settings = _settings(home)
    out.print(local.login_url(settings, _address(settings)), highlight=False, soft_wrap=True)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    user: Annotated[str, typer.Option(help="Whose it is; made when there is nobody of that name.")] = "admin",
    role: Annotated[str, typer.Option(help="Of a user that is made: admin, member or viewer.")] = "member",
    days: Annotated[int, typer.Option(min=0, help="How long it is good; 0: until it is revoked.")] = auth.API_DAYS,
    home: Home = None,
) -> None:
    """Make an API token. It is printed this once."""
    with _session(_settings(home)) as session:
        found = local.user(session, user, role)
        _, plain = auth.api_token(session, found, name, days or None)
    out.print(plain, highlight=False, soft_wrap=True)


@tokens.command("list")
def list_tokens(home: Home = None) -> None:
    """List the API tokens that can be used."""
    table = Table("Id", "User", "Name", "Last used", "Expires")
    with _session(_settings(home)) as session:
        for token, owner in local.tokens(session):
            table.add_row(token.id, owner.name, token.name, _day(token.last_used_at), _day(token.expires_at))
    out.print(table)


@tokens.command("revoke")
def revoke_token(token_id: Annotated[str, typer.Argument(metavar="ID")], home: Home = None) -> None:
    """Let an API token, and the sessions that were begun with it, be good no longer."""
    with _session(_settings(home)) as session:
        token = session.get(Token, token_id)
        owner = session.get(User, token.user_id) if token else auth.bootstrap(session)
        assert owner is not None
        auth.revoke(session, owner, token_id)
    out.print("Revoked.", highlight=False)


@app.command()
def submit(
    file: SpecFile = None,
    preset: Preset = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show it until it has ended.")] = False,
) -> None:
    """Submit a job."""
    body = _body(file, preset) | ({"name": name} if name else {})
    with _client() as client:
        job = client.submit(body)
        out.print(job.id, highlight=False)
        err.print(f"{job.name}: {client.url}{job.urls['web']}", highlight=False, soft_wrap=True)
        if wait:
            _watch(client, job)


@app.command()
def plan(file: SpecFile = None, preset: Preset = None) -> None:
    """Show what a job would do and cost. Nothing is stored."""
    with _client() as client:
        planned = client.plan(_body(file, preset))
    table = Table("Step", "What", "State", title=planned.name, title_justify="left")
    for step in planned.steps:
        table.add_row(str(step.kind), step.title, "found in the store" if step.cached else "to do")
    out.print(table)
    out.print_json(planned.estimate.model_dump_json())
    for warning in planned.warnings:
        out.print(f"[yellow]![/] {warning}", highlight=False)


@app.command("list")
def list_jobs(limit: Annotated[int, typer.Option(min=1, max=100)] = 20) -> None:
    """List jobs, newest first."""
    table = Table("Id", "Name", "State", "Now")
    with _client() as client:
        for job in client.jobs(limit=limit).data:
            table.add_row(job.id, job.name, job.state, job.sentence)
    out.print(table)


@app.command()
def watch(job_id: JobId) -> None:
    """Show a job until it has ended."""
    with _client() as client:
        _watch(client, client.job(job_id))


@app.command()
def cancel(job_id: JobId) -> None:
    """Cancel a job."""
    with _client() as client:
        out.print(client.cancel(job_id).sentence, highlight=False)


@app.command()
def download(
    job_id: JobId,
    folder: Annotated[Path, typer.Option("--to", help="Where to put the files.", file_okay=False)] = Path(),
    name: Annotated[list[str] | None, typer.Option(help="Only this file (may be given again).")] = None,
) -> None:
    """Download what a job made, going on where an earlier download broke off; the SHA-256 is checked."""
    with _client() as client:
        files = [file for file in client.artifacts(job_id).data if not name or file.name in name]
        if not files:
            raise ClientError(f"{job_id} has no such files.", "A job has files when it has succeeded.")
        for file in files:
            out.print(str(client.download(job_id, file.name, folder)), highlight=False, soft_wrap=True)


@app.command("doctor")
def examine(home: Home = None) -> None:
    """Look whether this machine has what a server needs."""
    findings = doctor.examine(_with_running_redis(_settings(home)))
    for finding in findings:
        mark = "[green]✔[/]" if finding.ok else "[red]✘[/]"
        out.print(f"{mark} {finding.name:<9} {finding.detail}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED)


class _Outcome:
    """How the demo ended."""

    code = FAILED


def _demo(connection: local.Connection, settings: Settings, outcome: _Outcome) -> None:
    """Submit the demo job, show it, and say what came of it."""
    with Client(connection.url, connection.token) as client:
        job = client.submit({"preset": "demo"})
        out.print(f"  Demo job {job.id}: {job.name}\n", highlight=False, soft_wrap=True)
        ended = terminal.follow(client, job.id, out)
        package = next((step.key for step in ended.steps if step.kind == "package"), "")
        terminal.show_outcome(client, ended, out, lambda name: str(settings.store_root / "steps" / package / name))
        outcome.code = 0 if ended.state == "succeeded" else FAILED


def _in_background(action: Any, running: up.Server, *, stop_after: bool) -> None:
    """Beside the main thread, which keeps everything alive."""

    def run() -> None:
        try:
            action()
        except ClientError as error:
            if not running.is_stopping:
                terminal.tell(err, error)
        finally:
            if stop_after:
                running.stop()
            elif not running.is_stopping:
                out.print("\nServing until Ctrl-C.", highlight=False)

    threading.Thread(target=run, name="demo", daemon=True).start()


def _greet(running: up.Server, settings: Settings) -> None:
    local.connect(settings, running.url)
    out.print("  First login (good once, 30 minutes):", highlight=False)
    out.print(f"  {local.login_url(settings, running.url)}\n", highlight=False, soft_wrap=True)


def _watch(client: Client, job: JobOut) -> None:
    ended = terminal.follow(client, job.id, out)
    terminal.show_outcome(client, ended, out)
    if ended.state != "succeeded":
        raise typer.Exit(FAILED)


def _body(file: Path | None, preset: str | None) -> dict[str, Any]:
    """What is sent: a preset's name, or a file that holds a spec or a whole request."""
    if (file is None) == (preset is None):
        raise typer.BadParameter("give either a file or --preset")
    if file is None:
        return {"preset": preset}
    try:
        value = json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text())
    except (ValueError, yaml.YAMLError) as error:
        raise ClientError(f"{file} cannot be read: {error}", "It should be a spec as YAML or JSON.") from error
    if not isinstance(value, dict):
        raise ClientError(f"{file} holds no spec.", "It should be a mapping of fields to values.")
    return value if {"spec", "preset"} & value.keys() else {"spec": value}


def _settings(home: Path | None) -> Settings:
    settings = Settings() if home is None else Settings(home=home)
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def _with_running_redis(settings: Settings) -> Settings:
    """With the Redis that `fadrm up` started on this home folder, where no other is named."""
    if settings.redis_url:
        return settings
    return settings.model_copy(update={"redis_url": redis_server.url_of_running(settings.home / "run")})


def _address(settings: Settings) -> str:
    known = local.read_connection(settings.home)
    return settings.public_url or (known.url if known else "http://127.0.0.1:8080")


def _client() -> Client:
    """The server that FADRM_URL and FADRM_TOKEN name, or the one of this machine."""
    settings = _settings(None)
    known = local.read_connection(settings.home)
    url = settings.url or (known.url if known else "")
    token = settings.token.get_secret_value() or (known.token if known and url == known.url else "")
    if not url:
        raise Unreachable("There is no server to ask.", "Start one with `fadrm up`, or set FADRM_URL and FADRM_TOKEN.")
    return Client(url, token)


@contextmanager
def _session(settings: Settings) -> Iterator[Any]:
    built = services.build(settings)
    try:
        with built.database.write() as session:
            yield session
    finally:
        built.close()


def _day(at: Any) -> str:
    return f"{at:%Y-%m-%d}" if at else "never"


if __name__ == "__main__":
    main()
