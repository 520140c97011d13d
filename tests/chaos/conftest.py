"""The fixtures of the worker's tests, for plays of minutes."""

from tests.worker.conftest import database_url, make_stage, postgres_url, redis, sqlite_url

__all__ = ["database_url", "make_stage", "postgres_url", "redis", "sqlite_url"]
