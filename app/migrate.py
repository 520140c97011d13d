"""Bring a database to the newest schema. Safe to call from several processes at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text

from app.db import BUSY_TIMEOUT_MS, Database
from app.trouble import CannotStart

REMEDY = "Put a copy in its place (`fadrm.db.*.bak` beside it, or your backup), or move it away to begin anew."
SCRIPTS = Path(__file__).parents[1] / "migrations"
LOCK = 0x464144524E  # of PostgreSQL; on SQLite the transaction itself is one at a time


def config(connection: Connection | None = None) -> Config:
    """Alembic without a file. connection: one in a transaction, which the caller ends."""
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    made.attributes["connection"] = connection
    return made


def upgrade(database_url: str, revision: str = "head") -> None:
    """Make or change the tables: all of it, or nothing when it fails. Raises CannotStart when the file is damaged.

    A SQLite file of an older schema is copied first, to `<file>.<its revision>.bak`.
    """
    _secure(database_url)
    _run(database_url, lambda made: command.upgrade(made, revision))


def downgrade(database_url: str, revision: str = "base") -> None:
    """Take changes back. Loses what only the newer schema holds."""
    _run(database_url, lambda made: command.downgrade(made, revision))


def is_current(connection: Connection) -> bool:
    """Whether the database has the newest schema."""
    return revision(connection) == newest()


def revision(connection: Connection) -> str | None:
    """The schema that the database has; None when it has none."""
    found: str | None = MigrationContext.configure(connection).get_current_revision()
    return found


def newest() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(config()).get_current_head()


def _secure(database_url: str) -> None:
    """Look at a SQLite file that was not closed properly, and copy one that is about to change."""
    url = make_url(database_url)
    path = Path(url.database or "")
    if url.get_backend_name() != "sqlite" or not path.is_file():
        return
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
            _check(connection, path)
            _copy(connection, path)
    except sqlite3.DatabaseError as error:
        raise CannotStart(f"{path} cannot be read: {error}. {REMEDY}") from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    """What the last process to close a file does is to remove its log: a log that is there tells of a crash, or of company."""
    if not path.with_name(f"{path.name}-wal").exists():
        return
    found = connection.execute("PRAGMA quick_check").fetchone()[0]
    if found != "ok":
        raise CannotStart(f"{path} is damaged: {found}. {REMEDY}")


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    has_schema = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if has_schema else None
    if row is None or row[0] == newest():
        return
    target = path.with_name(f"{path.name}.{row[0]}.bak")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy)
    part.replace(target)


def _run(database_url: str, change: Callable[[Config], None]) -> None:
    database = Database(database_url)
    try:
        with database.engine.execution_options(immediate=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                # Who comes second waits for the first, however long.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            change(config(connection))
    finally:
        database.close()
