"""What a process of the service is made of, built once and passed on: settings, database, store, bell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from app.bell import Bell
from app.db import Database
from app.settings import Settings
from app.storage.bucket import Bucket
from app.storage.bucket_store import BucketStore
from engine.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Built by `build`; tests build their own."""

    settings: Settings
    database: Database
    store: Store
    bell: Bell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End what was begun."""
        self.bell.close()
        self.database.close()


def build(settings: Settings) -> Services:
    """The services that these settings describe. Connects lazily: nothing is asked of a server before it is needed."""
    return Services(
        settings=settings,
        database=Database(settings.database),
        store=store_of(settings),
        bell=Bell(settings.redis_url),
    )


def store_of(settings: Settings) -> Store:
    """The store that these settings describe: a folder, or a bucket with a folder. Raises ValueError for neither."""
    if not settings.bucket:
        return Store(settings.store_root)
    bucket = Bucket(settings.bucket, endpoint=settings.s3_endpoint)
    return BucketStore(settings.store_root, bucket, most_bytes=settings.cache_bytes)
