"""The service that the pages describe is the one of the app's tests."""

from tests.app.conftest import anonymous, app, client, owner, sqlite_database, sqlite_template, world

__all__ = ["anonymous", "app", "client", "owner", "sqlite_database", "sqlite_template", "world"]
