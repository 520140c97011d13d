"""`fadrm`: start a server, and speak to one. Every error that was foreseen is a sentence, a hint, and one of EXIT_CODES.

What a command needs is imported when it runs: `fadrm --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from app import cli_admin, cli_datasets, cli_storage, cli_workers, remote, remote_results, remote_sweeps
from app.cli_home import Home, transaction
from app.settings import Settings, load, shown
from app.trouble import CannotStart, ClientError, Unreachable

if TYPE_CHECKING:
    from app import up

FAILED, REFUSED, NO_ANSWER = 1, 3, 4
EXIT_CODES = {
    0: "done",
    1: "the job did not succeed, or this machine lacks something",
    2: "wrong usage",
    3: "refused: by the server, or because a file cannot be read",
    4: "no answer from the server",
    130: "interrupted: what was submitted goes on",
}
TOKEN_DAYS = 90
app = typer.Typer(
    name="fadrm",
    help="Distil image data sets with FADRM. Begin with: fadrm up --demo",
    epilog="Exit codes: " + "; ".join(f"{code} {told}" for code, told in EXIT_CODES.items()) + ".",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
tokens = typer.Typer(help="API tokens, straight in the database of this machine's server.", no_args_is_help=True)
out = Console()
err = Console(stderr=True)

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")]


def main() -> None:
    """The entry point: every error that was foreseen is a sentence and an exit code."""
    from app.errors import ServiceError

    try:
        app()
    except ClientError as error:
        remote.tell(err, error)
        sys.exit(NO_ANSWER if isinstance(error, Unreachable) else REFUSED)
    except ServiceError as error:
        remote.tell(err, ClientError(error.detail, error.hint))
        sys.exit(REFUSED)
    except CannotStart as error:
        remote.tell(err, ClientError(str(error)))
        sys.exit(FAILED)


@app.command("up")
def start_all(
    demo: Annotated[bool, typer.Option("--demo", help="Also submit a small job and show it.")] = False,
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the demo, with its outcome as exit code.")] = False,
    home: Home = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="By default one a GPU, or two that share the CPU.")
    ] = None,
) -> None:
    """Start everything on this machine: Redis, workers, API. Ctrl-C stops it all."""
    from app import up
    from app.demo import Demo

    settings = load(home)
    up.check_host(settings, host)
    up.make_home(settings.home)
    with up.Lock(settings.home), up.open_port(host, port) as listener:
        devices = up.choose_devices(workers)
        server = up.Server(settings=settings, host=host, listener=listener, devices=devices, console=out)
        if server.port != port:
            out.print(f"[yellow]![/] Port {port} is taken: using {server.port}.", highlight=False)
        up.listen(server.stop)
        shown = Demo(server=server, console=out, leave=leave) if demo else None
        try:
            server.prepare()
            server.start()
            if not server.is_stopping:
                _greet(server)
                if shown:
                    shown.begin()
            server.keep_alive()
        finally:
            out.print("Stopping ...", highlight=False)
            server.end()
    raise typer.Exit(FAILED if shown and leave and not shown.succeeded else 0)


@app.command()
def serve(
    home: Home = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    fd: Annotated[
        int | None,
        typer.Option(min=3, help="Number of a listening socket that was handed over; then --port says nothing."),
    ] = None,
) -> None:
    """Start the API alone. Workers, Redis and migrations are started elsewhere."""
    import socket

    from app import logs, machine, services, up
    from app.main import create_app, server

    machine.share_arenas()
    settings = _with_running_redis(load(home))
    up.check_host(settings, host)
    logs.configure()
    with services.build(settings) as built:
        sockets = None if fd is None else [socket.socket(fileno=fd)]
        server(create_app(built), host=host, port=port).run(sockets)


@app.command()
def worker(
    home: Home = None,
    device: Annotated[str | None, typer.Option(help="cpu, or cuda:<number> (FADRM_DEVICE).")] = None,
) -> None:
    """Start one worker: a Celery process that carries steps on one device. SIGTERM drains it."""
    settings = _with_running_redis(load(home))
    if not settings.redis_url:
        raise CannotStart("There is no Redis: start `fadrm up` on this machine, or set FADRM_REDIS_URL.")
    environment = os.environ | {
        "FADRM_HOME": str(settings.home),
        "FADRM_REDIS_URL": settings.redis_url,
        "FADRM_DEVICE": device or settings.device,
    }
    words = ["-m", "celery", "--quiet", "-A", "worker.tasks", "worker", "-P", "solo"]
    words += ["--without-gossip", "--without-mingle", "-l", "INFO"]
    os.execve(sys.executable, [sys.executable, *words], environment)  # noqa: S606 - becomes the worker


@app.command("migrate")
def migrate_database(home: Home = None) -> None:
    """Bring the database to the newest schema."""
    from app import migrate, up

    settings = load(home)
    if not settings.database_url:
        up.make_home(settings.home)
    migrate.upgrade(settings.database)
    out.print(f"The database is at {migrate.newest()}.", highlight=False)


@app.command()
def login(home: Home = None) -> None:
    """Print a new link that logs an administrator in, once."""
    from app import local

    settings = load(home)
    out.print(local.login_url(settings, local.address(settings)), highlight=False, soft_wrap=True)


@app.command("settings")
def show_settings(home: Home = None, as_json: remote.AsJson = False) -> None:
    """List every setting: its variable, value, where that comes from, and what it is for."""
    if as_json:
        return remote.print_json([setting._asdict() for setting in shown(load(home))])
    for setting in shown(load(home)):
        value = escape(setting.value) or "(empty)"
        out.print(f"[bold]{setting.variable}[/] = {value}   [dim]{setting.source}[/]", highlight=False, soft_wrap=True)
        out.print(f"    {escape(setting.help)}", highlight=False, soft_wrap=True)
    return None


@app.command("doctor")
def examine(home: Home = None, as_json: remote.AsJson = False) -> None:
    """Look whether this machine has what a server needs."""
    from app import doctor

    findings = doctor.examine(_with_running_redis(load(home)))
    if as_json:
        remote.print_json(findings)
    else:
        for finding in findings:
            mark = "[red]✘[/]" if not finding.ok else "[yellow]![/]" if finding.warns else "[green]✔[/]"
            out.print(f"{mark} {finding.name:<9} {finding.detail}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else FAILED)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    user: Annotated[str, typer.Option(help="Whose it is; made when there is nobody of that name.")] = "admin",
    role: Annotated[str, typer.Option(help="Of a user that is made: admin, member or viewer.")] = "member",
    days: Annotated[int, typer.Option(min=0, help="How long it is good; 0: until it is revoked.")] = TOKEN_DAYS,
    scope: Annotated[
        list[str] | None, typer.Option(help="read, submit or admin; may be given more than once: read and submit.")
    ] = None,
    home: Home = None,
) -> None:
    """Make an API token. It is printed this once."""
    from app import audit, auth, local

    scopes = scope or list(auth.API_SCOPES)
    for value, kind, known in ((role, "role", auth.ROLES), *((one, "scope", auth.SCOPES) for one in scopes)):
        if value not in known:
            raise typer.BadParameter(f"{value!r} is no {kind}: choose one of {', '.join(known)}")
    with transaction(home) as session:
        token, plain = auth.api_token(session, local.user(session, user, role), name, days or None, scopes)
        audit.note(session, None, "token.created", token.id, name=name, user=user, scopes=scopes)
    out.print(plain, highlight=False, soft_wrap=True)
    told = f"Good for the server whose home is {load(home).home}; another's: --home, or FADRM_HOME."
    err.print(told, highlight=False, markup=False, soft_wrap=True)


@tokens.command("list")
def list_tokens(home: Home = None, as_json: remote.AsJson = False) -> None:
    """List the API tokens that can be used."""
    from app import local, terminal
    from app.api.account import TokenOut

    with transaction(home) as session:
        found = [(owner.name, TokenOut.model_validate(token)) for token, owner in local.tokens(session)]
    if as_json:
        return remote.print_json([{"user": owner, **token.model_dump()} for owner, token in found])
    rows = [
        (
            token.id,
            owner,
            token.name,
            "all" if token.scopes is None else ", ".join(token.scopes),
            _day(token.last_used_at),
            _day(token.expires_at),
        )
        for owner, token in found
    ]
    return terminal.print_table(out, ("Id", "User", "Name", "Scopes", "Last used", "Expires"), rows)


@tokens.command("revoke")
def revoke_token(token_id: Annotated[str, typer.Argument(metavar="ID")], home: Home = None) -> None:
    """Let an API token, and the sessions that were begun with it, be good no longer."""
    from app import audit, auth, local

    with transaction(home) as session:
        owner = local.owner_of(session, token_id)
        auth.revoke(session, owner, token_id)
        audit.note(session, None, "token.revoked", token_id, user=owner.name)
    out.print("Revoked.", highlight=False)


app.add_typer(tokens, name="token")
app.add_typer(cli_admin.app, name="admin")
app.add_typer(remote_sweeps.app, name="sweep")
app.add_typer(remote_results.app, name="results")
remote.register(app)
cli_workers.register(app)
cli_storage.register(app)
app.command("upload")(cli_datasets.upload)
app.add_typer(cli_datasets.datasets, name="datasets")
app.add_typer(cli_datasets.teachers, name="teachers")


def _greet(server: up.Server) -> None:
    from app import local

    local.connect(server.settings, server.url)
    out.print("  First login (good once, 30 minutes):", highlight=False)
    out.print(f"  {local.login_url(server.settings, server.url)}\n", highlight=False, soft_wrap=True)


def _with_running_redis(settings: Settings) -> Settings:
    """With the Redis that `fadrm up` started on this home folder, where no other is named."""
    if settings.redis_url:
        return settings
    from app import redis_server

    return settings.model_copy(update={"redis_url": redis_server.url_of_running(settings.home / "run")})


def _day(at: Any) -> str:
    return f"{at:%Y-%m-%d}" if at else "never"


if __name__ == "__main__":
    main()
