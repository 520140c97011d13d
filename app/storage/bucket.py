"""A bucket that speaks S3, as objects by their names. What goes wrong with it is an OSError with a sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SCHEME = "s3"
CHUNK_BYTES = 8 * 2**20
DELETED_TOGETHER = 1000  # objects, the most that S3 takes in one request
ATTEMPTS, CONNECT_S, READ_S = 3, 5, 60  # of one request, by the client itself
TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
MISSING = frozenset({"NoSuchKey", "404"})
REFUSED = {
    "403": "refuses these credentials",
    "AccessDenied": "refuses these credentials",
    "InvalidAccessKeyId": "does not know this access key",
    "SignatureDoesNotMatch": "refuses this secret key",
    "NoSuchBucket": "has no such bucket",
}


class BucketAway(OSError):
    """The bucket does not answer, or refuses: nothing can be read or published until it does."""


class Bucket:
    """The objects below one prefix. Credentials are those of the usual AWS variables or files, never of our settings."""

    def __init__(self, url: str, *, endpoint: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme != SCHEME or not parts.netloc:
            raise ValueError(f"{url!r} names no bucket: write s3://bucket or s3://bucket/prefix")
        self.name, self.prefix = parts.netloc, parts.path.strip("/")
        self._endpoint = endpoint

    def __str__(self) -> str:
        return f"{SCHEME}://{self.name}/{self.prefix}".rstrip("/")

    @cached_property
    def client(self) -> Any:
        """What speaks for us; of no use outside of this module but to make a bucket."""
        import boto3  # takes a third of a second, and only stores in a bucket need it
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        return boto3.session.Session().client(SCHEME, endpoint_url=self._endpoint or None, config=config)

    def check(self) -> None:
        """Raises BucketAway when it cannot be read."""
        with self._told():
            self.client.list_objects_v2(Bucket=self.name, Prefix=self._key(""), MaxKeys=1)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        try:
            with self._told(name):
                self.client.head_object(Bucket=self.name, Key=self._key(name))
        except FileNotFoundError:
            return False
        return True

    def read(self, name: str) -> bytes:
        """A small object. Raises FileNotFoundError."""
        with self._told(name):
            body: bytes = self.client.get_object(Bucket=self.name, Key=self._key(name))["Body"].read()
            return body

    def write(self, name: str, data: bytes, *, once: bool = False) -> bool:
        """Put a small object. once: only where there is none of that name; returns whether it was put."""
        condition = {"IfNoneMatch": "*"} if once else {}
        try:
            with self._told(name):
                self.client.put_object(Bucket=self.name, Key=self._key(name), Body=data, **condition)
        except FileExistsError:
            return False
        return True

    def upload(self, path: Path, name: str, tick: Callable[[], None]) -> None:
        """Put a file. tick: called now and then, and may raise; nothing is there then."""
        from boto3.s3.transfer import TransferConfig

        settings = TransferConfig(use_threads=False, multipart_chunksize=CHUNK_BYTES)
        with self._told(name), path.open("rb") as file:
            self.client.upload_fileobj(file, self.name, self._key(name), Callback=lambda _: tick(), Config=settings)

    def download(self, name: str, path: Path, tick: Callable[[], None]) -> str:
        """Get a file; returns the SHA-256 of what came. Raises FileNotFoundError."""
        digest = hashlib.sha256()
        with self._told(name), path.open("wb") as file:
            body = self.client.get_object(Bucket=self.name, Key=self._key(name))["Body"]
            for chunk in body.iter_chunks(CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                tick()
        return digest.hexdigest()

    def names(self, below: str) -> Iterator[str]:
        """The names of all objects that begin so, with what they begin with."""
        skipped = len(self._key(""))
        with self._told(below):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self._key(below))
            for page in pages:
                yield from (found["Key"][skipped:] for found in page.get("Contents", ()))

    def delete(self, below: str) -> None:
        """Remove all objects that begin so. Harmless when there are none."""
        found = self.names(below)
        while names := list(islice(found, DELETED_TOGETHER)):
            with self._told(below):
                doomed = [{"Key": self._key(name)} for name in names]
                self.client.delete_objects(Bucket=self.name, Delete={"Objects": doomed, "Quiet": True})

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    @contextmanager
    def _told(self, name: str = "") -> Iterator[None]:
        """Whatever the client raises, in our words: FileNotFoundError, FileExistsError, BucketAway."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in MISSING:
                raise FileNotFoundError(f"{self} has no {name}") from error
            if code in TAKEN:
                raise FileExistsError(f"{self} has {name} already") from error
            raise BucketAway(f"The store's bucket {self} {REFUSED.get(code, f'answers {code}')}.") from error
        except (BotoCoreError, HTTPClientError, Boto3Error) as error:
            raise BucketAway(f"The store's bucket {self} cannot be used: {error}") from error
