"""The migrations make the tables that the program knows, on both databases, and can be taken back."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import warnings
from datetime import datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from app import migrate
from app.db import Database
from app.models import Token
from app.trouble import CannotStart
from tests.app.world import damage

TABLES = set(Token.metadata.tables)
EMPTY = {int: 0, float: 0.0, bool: False, str: "", object: "{}", datetime: "2026-01-01 00:00:00+00:00"}  # type -> value


def differences(url: str) -> list[object]:
    database = Database(url)
    with database.engine.connect() as connection:
        assert migrate.is_current(connection)
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        with warnings.catch_warnings():  # SQLite's indexes of expressions cannot be read back, and are left out
            warnings.filterwarnings("ignore", message=".*expression-based index")
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


def test_a_file_of_an_older_schema_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path / 'fadrm.db'}", tmp_path / "fadrm.db.0000.bak"
    migrate.upgrade(url)
    migrate.upgrade(url)
    assert not list(tmp_path.glob("*.bak*")), "nothing changes, so nothing is copied"
    with sqlite3.connect(tmp_path / "fadrm.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(CommandError):  # there is no 0000; the copy is made before that is found out
        migrate.upgrade(url)
    assert tables(f"sqlite:///{copy}") == TABLES and not list(tmp_path.glob(".fadrm.db.*"))


@pytest.mark.parametrize("is_open", [True, False])
def test_a_damaged_file_is_not_touched(tmp_path: Path, is_open: bool) -> None:
    url, path = f"sqlite:///{tmp_path / 'fadrm.db'}", tmp_path / "fadrm.db"
    migrate.upgrade(url)
    if is_open:
        damage(path)
        path.with_name("fadrm.db-wal").touch()  # as a crash leaves it
    else:
        path.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    before = path.read_bytes()
    with pytest.raises(CannotStart, match=r"fadrm\.db.*\.bak"):
        migrate.upgrade(url)
    assert path.read_bytes() == before


def test_of_names_that_differ_by_their_case_alone_the_oldest_stays(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0009")
    database = Database(empty_url)
    users = [
        ("usr_00000001", "mei", "2026-01-01"),
        ("usr_00000002", "Mei", "2025-01-01"),
        ("usr_00000003", "b", "2026-01-01"),
    ]
    with database.engine.begin() as connection:
        for ident, name, at in users:
            more = {"id": ident, "name": name, "at": f"{at} 00:00:00+00:00"}
            connection.execute(
                text("INSERT INTO users (id, name, role, created_at) VALUES (:id, :name, 'member', :at)"), more
            )
            connection.execute(text("INSERT INTO teams (id, name, created_at) VALUES (:id, :name, :at)"), more)
    migrate.upgrade(empty_url)
    with database.engine.begin() as connection:
        for table in ("users", "teams"):
            found = connection.execute(text(f"SELECT name FROM {table} ORDER BY id")).scalars().all()
            assert found == ["mei-00000001", "Mei", "b"]
    for table in ("users", "teams"):
        with pytest.raises(IntegrityError), database.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET name = 'MEI' WHERE name = 'b'"))
    database.close()


def test_attempts_of_an_older_server_are_their_jobs_owners(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0010")
    database = Database(empty_url)
    with database.engine.begin() as connection:
        for number, name in enumerate(("ann", "bob"), 1):
            put(connection, "users", id=name, name=name)
            put(connection, "jobs", id=f"job_{name}", owner_id=name)
            put(connection, "steps", id=number, job_id=f"job_{name}")
            put(connection, "attempts", step_id=number, worker=name)
    migrate.upgrade(empty_url)
    with database.engine.begin() as connection:
        found = connection.execute(text("SELECT worker, owner_id FROM attempts ORDER BY worker")).all()
    database.close()
    assert found == [("ann", "ann"), ("bob", "bob")]


def put(connection: Connection, table: str, **known: str | int) -> None:
    """Insert a row of an older server. What is not said, and must be there, is empty."""
    needed = [column for column in inspect(connection).get_columns(table) if not column["nullable"]]
    empty = {one["name"]: EMPTY[one["type"].python_type] for one in needed if one["default"] is None}
    row = empty | known
    places = ", ".join(f":{name}" for name in row)
    connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})"), row)


def test_the_newest_revision_is_known() -> None:
    assert migrate.newest() == "0011"
