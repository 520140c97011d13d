"""A real S3 server of the tests' own: moto's, in a process of its own, so that it can be killed and frozen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from app.storage.bucket import Bucket

NAME = "fadrm-tests"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "of-the-tests",
    "AWS_SECRET_ACCESS_KEY": "of-the-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
START_S = 60.0


class S3Server:
    """It forgets everything when it ends."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def make(self, prefix: str) -> Bucket:
        """A bucket that is there; prefix: of the objects of one test."""
        bucket = Bucket(f"s3://{NAME}/{prefix}", endpoint=self.url)
        until = time.monotonic() + START_S
        while True:
            try:
                bucket.client.create_bucket(Bucket=NAME)
                bucket.check()
            except Exception:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            else:
                return bucket

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """With these variables set."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """One that answers, with its credentials in the environment."""
    with environment(CREDENTIALS):
        server = S3Server()
        try:
            server.make("")
            yield server
        finally:
            server.close()
