"""Fixtures: a stage on SQLite or PostgreSQL, a Redis of the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as Client

from app import redis_server
from app.queue import PREFIX, QUEUE
from app.redis_server import USER
from tests.postgres import new_postgres
from tests.worker.stage import Stage


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """An empty database of its own on the server."""
    with new_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


class RedisOfTest:
    """A Redis server that a test may kill and start again."""

    def __init__(self, folder: Path) -> None:
        self.embedded = redis_server.prepare(folder)
        self.start()

    @property
    def url(self) -> str:
        return self.embedded.url

    def start(self) -> None:
        self.process = subprocess.Popen(self.embedded.command, stdout=subprocess.DEVNULL, start_new_session=True)
        self.embedded.await_ready()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def flush(self) -> None:
        """Let it forget everything, as one that came back empty."""
        with self._client() as client:
            for key in client.keys("*"):
                client.delete(key)

    def forge(self, *messages: bytes) -> None:
        """Put messages into the queue that no ringer of ours would."""
        with self._client() as client:
            client.rpush(f"{PREFIX}{QUEUE}", *messages)

    def _client(self) -> Client:
        return Client(unix_socket_path=str(self.embedded.socket), username=USER, password=self.embedded.password)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisOfTest]:
    server = RedisOfTest(tmp_path / "redis")
    yield server
    server.kill()


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def make(url: str, redis_url: str = "", **settings: Any) -> Stage:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        stages.append(Stage(home, url, redis_url, **settings))
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()


@pytest.fixture
def any_stage(make_stage: Callable[..., Stage], database_url: str) -> Stage:
    """On both databases. Without Redis: the worker's loop runs in the test's own process."""
    return make_stage(database_url)


@pytest.fixture
def stage(make_stage: Callable[..., Stage], sqlite_url: str) -> Stage:
    """The same on SQLite alone: for what has nothing to do with the database's kind."""
    return make_stage(sqlite_url)


@pytest.fixture
def lit_stage(make_stage: Callable[..., Stage], sqlite_url: str, redis: RedisOfTest) -> Stage:
    """With Redis, for real Celery workers."""
    return make_stage(sqlite_url, redis.url)
