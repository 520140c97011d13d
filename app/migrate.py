"""Bring a database to the newest schema. Safe to call from several processes at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.db import Database

SCRIPTS = Path(__file__).parents[1] / "migrations"
LOCK = 0x464144524E  # of PostgreSQL; on SQLite the transaction itself is one at a time


def config(connection: Connection | None = None) -> Config:
    """Alembic without a file. connection: one in a transaction, which the caller ends."""
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    made.attributes["connection"] = connection
    return made


def upgrade(database_url: str, revision: str = "head") -> None:
    """Make or change the tables: all of it, or nothing when it fails."""
    _run(database_url, lambda made: command.upgrade(made, revision))


def downgrade(database_url: str, revision: str = "base") -> None:
    """Take changes back. Loses what only the newer schema holds."""
    _run(database_url, lambda made: command.downgrade(made, revision))


def is_current(connection: Connection) -> bool:
    """Whether the database has the newest schema."""
    return MigrationContext.configure(connection).get_current_revision() == newest()


def newest() -> str | None:
    """The newest revision that this program knows."""
    return ScriptDirectory.from_config(config()).get_current_head()


def _run(database_url: str, change: Callable[[Config], None]) -> None:
    database = Database(database_url)
    try:
        with database.engine.execution_options(immediate=True).begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
            change(config(connection))
    finally:
        database.close()
