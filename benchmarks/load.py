"""The server under load: submissions, reads, event streams, a Redis that is frozen, a soak. Figures of docs/reliability.md.

    python -m benchmarks.load all [--seconds 20]     # on SQLite and PostgreSQL, as rows of a table; all but the soak
    python -m benchmarks.load submit | read [--redis frozen] [--database URL] [--clients 32] [--seconds 20]
    python -m benchmarks.load streams [--clients 500] [--stalled 50]
    python -m benchmarks.load soak [--seconds 1800] [--rate 5]

The server is a process of its own (`fadrm serve`), with logins; clients and a worker that only pretends to compute share
this process and the machine. Without --database: SQLite in a new folder. Prints one JSON object a measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from contextlib import ExitStack
from typing import Any

from benchmarks.served import SPEC, Served, frozen_redis, new_job, serving
from benchmarks.streams import soak, streams
from benchmarks.tally import pound
from tests.postgres import new_postgres


def submit(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    tally = asyncio.run(pound(served, "/api/v1/jobs", options.clients, options.seconds, {"spec": SPEC}))
    return tally.figures(options.seconds)


def read(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    job = new_job(served)
    return asyncio.run(pound(served, f"/api/v1/jobs/{job}", options.clients, options.seconds)).figures(options.seconds)


KINDS = {"submit": submit, "read": read, "streams": streams, "soak": soak}
ALL: tuple[dict[str, Any], ...] = (
    {"kind": "submit", "clients": 32},
    {"kind": "submit", "clients": 32, "redis": "frozen"},
    {"kind": "read", "clients": 32},
    {"kind": "streams", "clients": 500},
    {"kind": "streams", "clients": 5, "stalled": 50},
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One measurement, with a server of its own."""
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        redis_url = stack.enter_context(frozen_redis()) if options.redis == "frozen" else ""
        found = KINDS[options.kind](stack.enter_context(serving(options.database, redis_url)), options)
    asked = vars(options) | {"database": options.database.partition(":")[0] or "sqlite"}
    return asked | found | {"load_before": round(before, 1)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["all", *KINDS])
    parser.add_argument("--database", default="", help="an empty PostgreSQL database; by default SQLite")
    parser.add_argument("--redis", choices=["none", "frozen"], default="none")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--stalled", type=int, default=0, help="further clients that open a stream and read nothing")
    parser.add_argument("--rate", type=float, default=5.0, help="jobs per second of the soak")
    options = parser.parse_args()
    if options.kind != "all":
        print(json.dumps(measure(options)))
        return
    for one in ALL:
        print(json.dumps(measure(argparse.Namespace(**vars(options) | one))), flush=True)
    for one in ALL:
        with new_postgres() as url:
            print(json.dumps(measure(argparse.Namespace(**vars(options) | one | {"database": url}))), flush=True)


if __name__ == "__main__":
    main()
