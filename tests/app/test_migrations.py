"""The migrations make the tables that the program knows, on both databases, and can be taken back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from app import migrate
from app.db import Database
from app.models import Token

TABLES = set(Token.metadata.tables)


def differences(url: str) -> list[object]:
    database = Database(url)
    with database.engine.connect() as connection:
        assert migrate.is_current(connection)
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        found: list[object] = compare_metadata(context, Token.metadata)
    database.close()
    return found


def tables(url: str) -> set[str]:
    database = Database(url)
    found = set(inspect(database.engine).get_table_names())
    database.close()
    return found - {"alembic_version"}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database in which nothing is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("empty_postgres_url")
    return url


def test_the_migrations_make_what_the_program_knows(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    assert tables(empty_url) == TABLES and not differences(empty_url)
    migrate.upgrade(empty_url)
    assert not differences(empty_url)


def test_the_migrations_can_be_taken_back(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url)
    assert not tables(empty_url)
    migrate.upgrade(empty_url)
    assert tables(empty_url) == TABLES


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    program = f"from app import migrate; migrate.upgrade({empty_url!r})"
    started = [subprocess.Popen([sys.executable, "-c", program], cwd=migrate.SCRIPTS.parent) for _ in range(2)]
    assert [process.wait(timeout=60) for process in started] == [0, 0]
    assert not differences(empty_url)


def test_a_failed_migration_leaves_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE workers (id INTEGER)"))  # in the way of the last table
    database.close()
    with pytest.raises(Exception, match="workers"):
        migrate.upgrade(empty_url)
    assert tables(empty_url) == {"workers"}


def test_the_newest_revision_is_known() -> None:
    assert migrate.newest() == "0001"
