"""Event streams under load, and a soak: what a server is like for those who watch, and after a long time."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import httpx

from app import claims, leases
from app.claims import Holder
from app.leases import Lease
from app.models import TERMINAL_JOB_STATES, Job, utc_now
from benchmarks.served import PATIENCE_S, Served, new_job
from benchmarks.tally import Tally, request
from engine import events
from engine.plan import StepKind

HOLDER = Holder(worker="load:cpu:0", host="load", device="cpu")
JOBS_WATCHED, EVENTS_PER_S = 8, 10
NUM_WATCHERS, MOST_UNFINISHED = 4, 20  # of the soak


def streams(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Jobs that tell ten events a second each, and clients that watch one of them; some may never read what they get."""
    jobs = [new_job(served, 1 + index) for index in range(JOBS_WATCHED)]
    before, told = served.rss_mib(), threading.Event()
    writer = threading.Thread(target=tell, args=(served, jobs, options.seconds, told))
    lags: list[float] = []
    gaps: list[int] = []

    async def watch(job: str) -> None:
        reader, out = await asyncio.open_connection("127.0.0.1", served.port, limit=2**24)
        out.write(request("GET", f"/api/v1/jobs/{job}/events/stream", served))
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

    async def stall(job: str) -> None:
        _, out = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        out.write(request("GET", f"/api/v1/jobs/{job}/events/stream", served))
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        out.transport.abort()

    async def play() -> tuple[float, float]:
        tasks = [asyncio.create_task(watch(jobs[index % len(jobs)])) for index in range(options.clients)]
        tasks += [asyncio.create_task(stall(jobs[index % len(jobs)])) for index in range(options.stalled)]
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
        "mib": round(rss - before, 1), "kib_per_client": round(1024 * (rss - before) / options.clients, 1),
        "cpu_share_of_a_core": round(cpu / options.seconds, 2),
    }  # fmt: skip


def tell(served: Served, jobs: list[str], seconds: float, told: threading.Event) -> None:
    """As a worker would: one transaction a job a second, with the events of that second."""
    held: dict[str, Lease] = {}
    while len(held) < len(jobs):
        with served.database.write() as session:
            lease = claims.claim(session, HOLDER)
            assert lease is not None
            if lease.step.kind == StepKind.PREPARE:  # equal steps run one at a time: not those that all of them share
                leases.finish(session, lease, result={}, seconds=0.1)
            else:
                held.setdefault(lease.job_id, lease)
    for second in range(int(seconds)):
        began = time.monotonic()
        for lease in held.values():
            some = [events.Log(message=f"line {second}.{index}") for index in range(EVENTS_PER_S)]
            with served.database.write() as session:
                leases.record(session, lease, some)
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
    told.set()


def soak(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Jobs come and are done for a long time, by a worker that only pretends, and some people watch them; how the server
    stands in the first tenth of it, when it is warm, and in the last."""
    stop, newest = threading.Event(), [new_job(served)]
    helpers = [threading.Thread(target=_carry, args=(served, stop))]
    helpers += [threading.Thread(target=_watch, args=(served, newest, stop)) for _ in range(NUM_WATCHERS)]
    for helper in helpers:
        helper.start()
    began, seen = time.monotonic(), []
    warm_at, until = began + min(60.0, options.seconds / 4), began + options.seconds
    while (now := time.monotonic()) < until:
        if options.rate * (now - began) >= len(newest) and _unfinished(served) < MOST_UNFINISHED:
            newest.append(new_job(served))
        else:
            time.sleep(0.02)
        if now > warm_at:
            seen.append((served.rss_mib(), float(served.num_files()), served.wal_mib()))
    stop.set()
    for helper in helpers:
        helper.join()
    with served.database.read() as session:
        ended = session.query(Job).filter(Job.state == "succeeded").count()
    return {"jobs": len(newest), "succeeded": ended, **_from_start_to_end(seen)}


def _from_start_to_end(seen: Sequence[tuple[float, ...]]) -> dict[str, list[float]]:
    """Name -> its mean in the first tenth and in the last, and the most there was."""
    tenth = max(1, len(seen) // 10)
    found = {}
    for name, values in zip(("rss_mib", "files", "wal_mib"), zip(*seen, strict=True), strict=True):
        first, last = statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])
        found[name] = [round(value, 1) for value in (first, last, max(values))]
    return found


def _unfinished(served: Served) -> int:
    with served.database.read() as session:
        return session.query(Job).filter(Job.state.not_in(TERMINAL_JOB_STATES)).count()


def _watch(served: Served, newest: Sequence[str], stop: threading.Event) -> None:
    """Somebody who looks at a job from its beginning to its end, and then at the next one."""
    headers, url = {"Authorization": f"Bearer {served.token}"}, f"http://127.0.0.1:{served.port}/api/v1/jobs/"
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=PATIENCE_S) as http:
        while not stop.is_set():
            job = newest[-1]
            http.get(job).raise_for_status()
            with http.stream("GET", f"{job}/events/stream", timeout=30.0) as answer:
                for _ in answer.iter_lines():
                    if stop.is_set():
                        break


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
