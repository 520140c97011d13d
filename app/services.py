"""What a process of the service is made of, built once and passed on: settings, database, store, bell."""

from __future__ import annotations

from dataclasses import dataclass

from app.bell import Bell
from app.db import Database
from app.settings import Settings
from engine.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Built by `build`; tests build their own."""

    settings: Settings
    database: Database
    store: Store
    bell: Bell

    def close(self) -> None:
        """End what was begun."""
        self.bell.close()
        self.database.close()


def build(settings: Settings) -> Services:
    """The services that these settings describe. Connects lazily: nothing is asked of a server before it is needed."""
    return Services(
        settings=settings,
        database=Database(settings.database),
        store=Store(settings.store_root),
        bell=Bell(settings.redis_url),
    )
