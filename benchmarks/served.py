"""A server as a process of its own, with a member's token, for what measures or tests it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from app import auth, local, migrate, redis_server, up
from app.db import Database

PATIENCE_S = 120.0  # on a machine that does much else
SPEC: dict[str, Any] = {
    "dataset": {"source": "digits", "resolution": 8},
    "ipc": 1,
    "method": {"method": "fadrm", "budgets": [2, 2]},
    "teachers": [{"network": "convnet3_w32", "epochs": 1}],
    "labels": {"epochs": 2},
    "evaluation": {"students": ["convnet3_w32"], "runs": 2, "baselines": ["random"], "labels": ["soft"], "every": 1},
    "flip": False,
}
LIMITLESS = {
    "FADRM_MAX_QUEUED_PER_USER": "100000000",
    "FADRM_MAX_READS_PER_MIN": "0",
    "FADRM_MAX_WRITES_PER_MIN": "0",
    "FADRM_MAX_STREAMS": "5000",
    "FADRM_MAX_STREAMS_PER_USER": "5000",
}


@dataclass(slots=True)
class Served:
    """One server, and what is known of it."""

    home: Path
    port: int
    token: str
    database: Database
    settings: dict[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Let it serve, or serve again."""
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(self.port)]
        with (self.home / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=os.environ | LIMITLESS | self.settings, stdout=log, stderr=log)
        _await(f"http://127.0.0.1:{self.port}/healthz")

    def rss_mib(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096 / 2**20

    def num_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def wal_mib(self) -> float:
        path = self.home / "fadrm.db-wal"
        return path.stat().st_size / 2**20 if path.exists() else 0.0

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with up.open_port("127.0.0.1", 0) as probe:
        found: int = probe.getsockname()[1]
        return found


@contextmanager
def serving(database_url: str, redis_url: str = "") -> Iterator[Served]:
    """A server on a free port, with a member's token."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), _free_port()
        url = database_url or f"sqlite:///{home / 'fadrm.db'}"
        migrate.upgrade(url)
        database = Database(url)
        with database.write() as session:
            user = local.user(session, f"load-{uuid4().hex[:8]}", "member")
            _, token = auth.api_token(session, user, "load")
        known = {"FADRM_HOME": str(home), "FADRM_DATABASE_URL": database_url, "FADRM_REDIS_URL": redis_url}
        served = Served(home, port, token, database, known)
        try:
            served.start()
            yield served
        finally:
            served.process.terminate()
            served.process.wait(30)
            database.close()


def _await(url: str) -> None:
    for _ in range(600):
        with suppress(httpx.HTTPError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the server does not answer")


@contextmanager
def frozen_redis() -> Iterator[str]:
    """The URL of a Redis that takes connections and answers nothing."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = redis_server.prepare(Path(folder))
        process = subprocess.Popen(embedded.command, stdout=subprocess.DEVNULL)
        embedded.await_ready()
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield embedded.url
        finally:
            process.kill()
            process.wait()


def new_job(served: Served, epochs: int = 1) -> str:
    headers = {"Authorization": f"Bearer {served.token}", "Idempotency-Key": str(uuid4())}
    url = f"http://127.0.0.1:{served.port}/api/v1/jobs"
    teacher = SPEC["teachers"][0] | {"epochs": epochs}
    spec = SPEC | {"seed": uuid4().int % 2**31, "teachers": [teacher]}
    until = time.monotonic() + PATIENCE_S
    while True:
        answer = httpx.post(url, headers=headers, json={"spec": spec}, trust_env=False, timeout=PATIENCE_S)
        if answer.status_code != 503 or time.monotonic() > until:
            break
        time.sleep(float(answer.headers["retry-after"]))  # a machine that does much else: the key makes it one job
    answer.raise_for_status()
    made: str = answer.json()["id"]
    return made
