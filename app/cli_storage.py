"""The commands about what is kept: on the files and the database of this machine's server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli_home import Home
from app.remote import AsJson, out, print_json
from app.settings import load
from fadrm.words import size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.storage.usage import KindOut


def register(app: typer.Typer) -> None:
    """Add these commands to a program."""
    app.command("storage")(show_storage)
    app.command("backup")(make_backup)
    app.command("restore")(restore_backup)


def show_storage(
    clean: Annotated[bool, typer.Option("--clean", help="Remove what has served its time, a round of it.")] = False,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Tell what the store holds by kind, user and job, and what can go."""
    from app import local, services, terminal
    from app.storage import janitor, stored, usage

    with services.build(load(home)) as built:
        with built.database.write() as session:
            admin = local.user(session, "admin", "admin")
            stored.reconcile(session, built.store)
        gone = usage.summed(janitor.clean_for(built, admin)) if clean else []
        found = usage.usage(built, admin)
    if as_json:
        return print_json(found)
    disk = found.disk
    out.print(
        f"{size(disk.free_bytes)} free of {size(disk.total_bytes)}, {size(disk.reserve_bytes)} in reserve",
        highlight=False,
    )
    _print_kinds("In the store", found.kinds)
    users = [(one.name, str(one.jobs), size(one.size_bytes)) for one in found.users]
    terminal.print_table(out, ("User", "Jobs", "Holds"), users)
    if gone:
        _print_kinds("Removed", gone)
    _print_kinds("What can go (`fadrm storage --clean`)", found.freeable)
    return None


def make_backup(
    target: Annotated[Path, typer.Argument(help="A new folder, or a new file that ends in .tar.")],
    store: Annotated[
        bool, typer.Option("--store", help="Also whole steps, contact sheets and uploads: linked, or copied.")
    ] = False,
    home: Home = None,
) -> None:
    """Write a backup of database and secret, and by wish of the store. The server may run meanwhile."""
    from app.storage import backup

    made = backup.backup(load(home), target, with_store=store)
    steps = f", {made.steps} steps" if store else "; the store is not in it (--store)"
    out.print(f"{target}: the {made.database} database at {made.revision}{steps}.", highlight=False, soft_wrap=True)


def restore_backup(
    source: Annotated[Path, typer.Argument(help="What `fadrm backup` wrote.")], home: Home = None
) -> None:
    """Make a server of a backup. Nothing may run on this home folder, and its database must be empty."""
    from app import up
    from app.storage import backup

    settings = load(home)
    up.make_home(settings.home)
    with up.Lock(settings.home):
        found = backup.restore(settings, source)
    out.print(f"Restored what was backed up at {found.made_at:%Y-%m-%d %H:%M} UTC.", highlight=False, soft_wrap=True)


def _print_kinds(title: str, kinds: Iterable[KindOut]) -> None:
    from app import terminal

    rows = [(one.title, f"{one.count:,}", size(one.size_bytes)) for one in kinds]
    terminal.print_table(out, ("What", "How many", "Size"), rows, title)
