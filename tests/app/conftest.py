"""Fixtures: databases (SQLite, and PostgreSQL where there is one), services, the app, and people."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from app import migrate
from app.bell import Bell
from app.db import Base, Database
from app.main import create_app
from app.services import Services
from app.settings import Settings
from engine.store import Store
from tests.app.world import Person, World
from tests.postgres import new_postgres

settings.register_profile("quick", deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
settings.load_profile("quick")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables, made by the migrations, to be copied."""
    path = tmp_path_factory.mktemp("template") / "fadrm.db"
    migrate.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A database of this test process's own, made by the migrations."""
    with new_postgres() as url:
        migrate.upgrade(url)
        yield url


@pytest.fixture
def empty_postgres_url() -> Iterator[str]:
    """A database of one test's own, in which nothing is."""
    with new_postgres() as url:
        yield url


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "fadrm.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[Database]:
    database = Database(postgres_url)
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with database.write() as session:
        session.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    yield database
    database.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_database(request: pytest.FixtureRequest) -> Database:
    """The test runs on both."""
    database: Database = request.getfixturevalue(f"{request.param}_database")
    return database


def made_of(database: Database, tmp_path: Path) -> World:
    """A world on this database."""
    config = Settings(home=tmp_path, hosts=("testserver", "127.0.0.1"), data_roots=(tmp_path / "data",), sweep_s=0.2)
    return World(services=Services(settings=config, database=database, store=Store(tmp_path / "store"), bell=Bell("")))


@pytest.fixture
def world(sqlite_database: Database, tmp_path: Path) -> World:
    return made_of(sqlite_database, tmp_path)


@pytest.fixture
def any_world(any_database: Database, tmp_path: Path) -> World:
    return made_of(any_database, tmp_path)


@pytest.fixture
def app(world: World) -> FastAPI:
    return create_app(world.services, background=False)


@pytest.fixture
def owner(world: World) -> Person:
    return world.person("owner")


@pytest.fixture
def anonymous(app: FastAPI) -> Iterator[TestClient]:
    """A client without a token."""
    with TestClient(app, follow_redirects=False) as client:
        yield client


@pytest.fixture
def client(anonymous: TestClient, owner: Person) -> TestClient:
    """A client of the owner."""
    anonymous.headers.update(owner.headers)
    return anonymous
