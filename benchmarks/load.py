"""The server under load: submissions, reads, event streams, a Redis that is frozen, a soak. Figures of docs/reliability.md.

    python -m benchmarks.load submit [--redis frozen] [--database URL] [--clients 32] [--seconds 20]
    python -m benchmarks.load read | streams [--clients 500] | soak [--seconds 1800]

The server is a process of its own (`fadrm serve`), with logins; clients and a worker that only pretends to compute share
this process and the machine. Without --database: SQLite in a new folder. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from app import auth, claims, leases, local, migrate, redis_server, up
from app.claims import Holder
from app.db import Database
from app.leases import Lease
from app.models import Job, utc_now
from engine import events

SPEC = {
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
HOLDER = Holder(worker="load:cpu:0", host="load", device="cpu")
JOBS_WATCHED, EVENTS_PER_S = 8, 10


@dataclass(slots=True)
class Served:
    """One server, and what is known of it."""

    home: Path
    port: int
    token: str
    process: subprocess.Popen[bytes]
    database: Database

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


@contextmanager
def serving(database_url: str, redis_url: str = "") -> Iterator[Served]:
    """A server on a free port, with a member's token."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), up.free_port("127.0.0.1", 0)
        url = database_url or f"sqlite:///{home / 'fadrm.db'}"
        migrate.upgrade(url)
        database = Database(url)
        with database.write() as session:
            user = local.user(session, f"load-{uuid4().hex[:8]}", "member")
            _, token = auth.api_token(session, user, "load")
        known = {"FADRM_HOME": str(home), "FADRM_DATABASE_URL": database_url, "FADRM_REDIS_URL": redis_url}
        command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
        with (home / "serve.log").open("wb") as log:
            process = subprocess.Popen(command, env=os.environ | LIMITLESS | known, stdout=log, stderr=log)
        try:
            _await(f"http://127.0.0.1:{port}/healthz")
            yield Served(home, port, token, process, database)
        finally:
            process.terminate()
            process.wait(30)
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


@dataclass(slots=True)
class Tally:
    """How long answers took, s, and which were wrong."""

    took: list[float] = field(default_factory=list)
    wrong: int = 0

    def figures(self, seconds: float) -> dict[str, Any]:
        ordered = sorted(self.took) or [0.0]
        at = {name: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for name, share in SHARES.items()}
        figures = {f"{name}_ms": round(1000 * value, 1) for name, value in at.items()}
        return {"per_s": round(len(self.took) / seconds, 1), **figures, "answers": len(self.took), "wrong": self.wrong}


SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}


async def pound(served: Served, path: str, clients: int, seconds: float, body: Any = None) -> Tally:
    """So many clients, each of which sends its next request when it has its answer."""
    tally, until = Tally(), time.monotonic() + seconds
    payload = json.dumps(body).encode() if body is not None else b""

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        while time.monotonic() < until:
            began = time.monotonic()
            writer.write(_request("POST" if payload else "GET", path, served, payload))
            status = await _answer(reader)
            tally.took.append(time.monotonic() - began)
            tally.wrong += status >= 300
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


def _request(method: str, path: str, served: Served, payload: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {served.token}"]
    if payload:
        head += ["Content-Type: application/json", f"Content-Length: {len(payload)}", f"Idempotency-Key: {uuid4()}"]
    return "\r\n".join([*head, "", ""]).encode() + payload


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length"))
    await reader.readexactly(length)
    return int(head.split()[1])


def submit(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    tally = asyncio.run(pound(served, "/api/v1/jobs", options.clients, options.seconds, {"spec": SPEC}))
    return tally.figures(options.seconds)


def read(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    job = new_job(served)
    return asyncio.run(pound(served, f"/api/v1/jobs/{job}", options.clients, options.seconds)).figures(options.seconds)


def new_job(served: Served) -> str:
    headers = {"Authorization": f"Bearer {served.token}", "Idempotency-Key": str(uuid4())}
    url = f"http://127.0.0.1:{served.port}/api/v1/jobs"
    answer = httpx.post(url, headers=headers, json={"spec": SPEC | {"seed": uuid4().int % 2**31}}, trust_env=False)
    answer.raise_for_status()
    made: str = answer.json()["id"]
    return made


def streams(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Jobs that tell ten events a second each, and clients that watch one of them."""
    jobs = [new_job(served) for _ in range(JOBS_WATCHED)]
    before, told = served.rss_mib(), threading.Event()
    writer = threading.Thread(target=tell, args=(served, jobs, options.seconds, told))
    lags: list[float] = []
    gaps: list[int] = []

    async def watch(job: str) -> None:
        reader, out = await asyncio.open_connection("127.0.0.1", served.port, limit=2**24)
        out.write(_request("GET", f"/api/v1/jobs/{job}/events/stream", served))
        last = 0
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                line = await reader.readuntil(b"\n")
                if line.startswith(b"data: ") and b'"seq"' in line:
                    event = json.loads(line[6:])
                    lags.append((utc_now() - datetime.fromisoformat(event["at"])).total_seconds())
                    gaps.append(event["seq"] - last - 1 if last else 0)
                    last = event["seq"]
        out.close()

    async def play() -> tuple[float, float]:
        tasks = [asyncio.create_task(watch(jobs[index % len(jobs)])) for index in range(options.clients)]
        await asyncio.sleep(5.0)
        lags.clear()
        cpu = served.cpu_s()
        writer.start()
        await asyncio.to_thread(told.wait)
        await asyncio.sleep(2.0)
        found = served.rss_mib(), served.cpu_s() - cpu
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    rss, cpu = asyncio.run(play())
    writer.join()
    figures = Tally(lags).figures(options.seconds)
    return {
        "events": len(lags), "gaps": sum(gaps), "lag_p50_ms": figures["p50_ms"], "lag_p99_ms": figures["p99_ms"],
        "kib_per_client": round(1024 * (rss - before) / options.clients, 1),
        "cpu_share_of_a_core": round(cpu / options.seconds, 2),
    }  # fmt: skip


def tell(served: Served, jobs: list[str], seconds: float, told: threading.Event) -> None:
    """As a worker would: one transaction a job a second, with the events of that second."""
    held: dict[str, Lease] = {}
    while len(held) < len(jobs):
        with served.database.write() as session:
            lease = claims.claim(session, HOLDER)
        if lease is None:
            break
        held[lease.job_id] = lease
    for second in range(int(seconds)):
        began = time.monotonic()
        for lease in held.values():
            some = [events.Log(message=f"line {second}.{index}") for index in range(EVENTS_PER_S)]
            with served.database.write() as session:
                leases.record(session, lease, some)
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    told.set()


def soak(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Jobs come and are done without a pause, by a worker that only pretends; how the server stands at start and end."""
    stop = threading.Event()
    worker = threading.Thread(target=_carry, args=(served, stop))
    worker.start()
    until, done, seen = time.monotonic() + options.seconds, 0, []
    warm_until = time.monotonic() + min(60.0, options.seconds / 4)
    while time.monotonic() < until:
        new_job(served)
        done += 1
        if time.monotonic() > warm_until:
            seen.append((served.rss_mib(), served.num_files(), served.wal_mib()))
    stop.set()
    worker.join()
    tenth = max(1, len(seen) // 10)
    first, last = seen[:tenth], seen[-tenth:]
    names = ("rss_mib", "files", "wal_mib")
    means = {
        name: [round(sum(row[index] for row in rows) / len(rows), 1) for rows in (first, last)]
        for index, name in enumerate(names)
    }
    with served.database.read() as session:
        ended = session.query(Job).filter(Job.state == "succeeded").count()
    return {"jobs": done, "succeeded": ended, **means, "from": datetime.now(UTC).isoformat(timespec="seconds")}


def _carry(served: Served, stop: threading.Event) -> None:
    while not stop.is_set():
        with served.database.write() as session:
            lease = claims.claim(session, HOLDER)
        if lease is None:
            time.sleep(0.05)
            continue
        with served.database.write() as session:
            leases.record(session, lease, [events.Metric(x=1, values={"loss": 1.0}), events.Log(message="done")])
            leases.finish(session, lease, result={}, seconds=0.1)


KINDS = {"submit": submit, "read": read, "streams": streams, "soak": soak}


def main() -> None:
    """Parse, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--database", default="", help="an empty PostgreSQL database; by default SQLite")
    parser.add_argument("--redis", choices=["none", "frozen"], default="none")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    if options.redis == "frozen":
        with frozen_redis() as url, serving(options.database, url) as served:
            found = KINDS[options.kind](served, options)
    else:
        with serving(options.database) as served:
            found = KINDS[options.kind](served, options)
    asked = vars(options) | {"database": options.database.partition(":")[0] or "sqlite"}
    print(json.dumps(asked | found | {"load_1min": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
