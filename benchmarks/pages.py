"""How quick the pages are when there is much: fills a data base, then asks each page, on SQLite and on PostgreSQL.

`python -m benchmarks.pages [--jobs 5000] [--points 1000000] [--previews 100000] [--long 100000] [--postgres URL] [--json FILE]`

Prints for each page: time to the first byte (the median of seven, asked once before), CPU time, bytes, as they are and
compressed as a proxy sends them, and the number of queries. Nothing of a page is cached: it is made anew at each request.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from fastapi.testclient import TestClient
from sqlalchemy import event, insert

from app import auth, migrate, planning
from app.main import create_app
from app.models import Event, Job, Metric, Preview, Step, StepNeed, User, Worker, utc_now
from app.services import Services, build
from app.settings import Settings
from engine.plan import StepKind
from engine.presets import DEMO, PRESETS
from engine.spec import JobSpec

ASKED = 7
BATCH = 5000  # rows of one statement
STATES = ("succeeded",) * 7 + ("failed", "cancelled")
UNFINISHED = 40  # jobs that wait
TILES = 100  # of a contact sheet: with 100 sheets, 10,000 images in one job's grid


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one page cost."""

    database: str
    page: str
    ttfb_ms: float
    slowest_ms: float
    cpu_ms: float  # of this process, which a busy machine does not lengthen; a PostgreSQL server's own is not in it
    kilobytes: float
    compressed_kilobytes: float
    queries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What was filled in, as far as addresses need it."""

    done: str  # a job with one very long curve and 10,000 images
    other: str
    waits: str
    after: str  # a cursor in the middle


class Writer:
    """Rows, many at once."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.rows: dict[Any, list[dict[str, Any]]] = {}

    def add(self, table: Any, row: dict[str, Any]) -> None:
        self.rows.setdefault(table, []).append(row)
        if len(self.rows[table]) >= BATCH:
            self.flush()

    def flush(self) -> None:
        with self.services.database.write() as session:
            for table in (Job, Step, StepNeed, Event, Metric, Preview):  # parents first
                rows = self.rows.pop(table, [])
                if rows:
                    session.execute(insert(table), rows)


def fill(services: Services, user: User, jobs: int, points: int, previews: int, long: int) -> Filled:
    """So many jobs of a real plan with its own keys, points and sheets spread over them, and one job that has a great deal."""
    chance = random.Random(0)
    specs = [PRESETS[name].spec for name in ("demo", "cifar10-small")] + [
        DEMO.model_copy(update={"ipc": ipc}) for ipc in (1, 5, 10)
    ]
    ids, now = [], utc_now()
    templates = [(spec, planning.prepare_spec(services, user, _offline(spec))) for spec in specs]
    writer, step_id = Writer(services), 0
    each_points, each_sheets = max(points - 3 * long, 0) // jobs, max(previews - 100, 0) // jobs
    for number in range(jobs):
        _, planned = templates[number % len(templates)]
        state = "queued" if number >= jobs - UNFINISHED else chance.choice(STATES)
        begun = now - timedelta(minutes=3 * (jobs - number))
        job_id = f"job_{int(begun.timestamp() * 1000):012x}{number:016x}"
        ids.append(job_id)
        is_last = number == jobs - UNFINISHED - 1
        state = "succeeded" if is_last else state
        keys = {step.key: f"{number:08x}{step.key[8:]}" for step in planned.plan.steps}
        over = state != "queued"
        rows = [row.model_dump(mode="json") | {"runs": [keys[key] for key in row.runs]} for row in planned.plan.rows]
        writer.add(Job, {
            "id": job_id, "owner_id": user.id, "name": f"{planned.name} {number}", "spec": planned.spec.model_dump(mode="json"),
            "spec_sha256": planned.spec.digest(), "rows": rows,
            "package_key": keys[planned.plan.package], "state": state, "last_seq": 3, "created_at": begun,
            "started_at": begun if over else None, "finished_at": begun + timedelta(minutes=2) if over else None,
        })  # fmt: skip
        by_key = {}
        for position, step in enumerate(planned.plan.steps):
            step_id += 1
            by_key[step.key] = step_id
            result = {
                "top1_last_pct": chance.uniform(50, 95),
                "top1_best_pct": 95.0,
                "top1_pct": 97.0,
                "network": "resnet18",
            }
            writer.add(Step, {
                "id": step_id, "job_id": job_id, "position": position, "key": keys[step.key], "kind": step.kind,
                "title": step.title,
                "params": step.params, "needs": {role: keys[key] for role, key in step.needs.items()}, "flop": step.flop,
                "size_bytes": step.size_bytes,
                "state": state, "attempts": int(over), "done": 100 * over, "total": 100, "unit": "iterations",
                "result": result if state == "succeeded" else None, "seconds": 12.5 if over else None,
                "started_at": begun if over else None, "finished_at": begun + timedelta(minutes=1) if over else None,
            })  # fmt: skip
            for key in sorted(set(step.needs.values())):
                writer.add(StepNeed, {"step_id": step_id, "need_id": by_key[key]})
        for seq in (1, 2, 3):
            writer.add(
                Event,
                {
                    "job_id": job_id,
                    "seq": seq,
                    "step_id": None,
                    "fence": 0,
                    "kind": "job",
                    "data": {"state": state},
                    "at": begun,
                },
            )
        recover = next((keys[step.key] for step in planned.plan.steps if step.kind == StepKind.RECOVER), None)
        if recover is None:
            continue
        count = long if is_last else each_points // 3
        for name in ("recover.loss", "recover.loss_ce", "recover.loss_bn"):
            for x in range(count):
                writer.add(
                    Metric, {"step_key": recover, "name": name, "x": x, "value": 2.0 / (1 + x) + chance.random() / 10}
                )
        for x in range(100 if is_last else each_sheets):
            tiles = TILES if is_last else 10
            names = [f"class {tile} · ipc 0" for tile in range(tiles)]
            data = {"total": 100, "columns": 10, "tile": 32, "labels": list(range(tiles)), "names": names, "x": x}
            writer.add(Preview, {"step_key": recover, "x": x, "sha256": f"{number:032x}{x:032x}", "data": data})
    writer.flush()
    with services.database.write() as session:
        session.add(Worker(id="bench:cpu:0", host="bench", pid=1, device="cpu", device_name="2 cores", version="1"))
    return Filled(
        done=ids[jobs - UNFINISHED - 1], other=ids[jobs - UNFINISHED - 2], waits=ids[-1], after=ids[jobs // 2]
    )


def _offline(spec: JobSpec) -> JobSpec:
    """The digits, whose facts are known without a download."""
    return spec.model_copy(update={"dataset": DEMO.dataset})


def addresses(filled: Filled) -> dict[str, str]:
    """What is asked."""
    return {
        "jobs": "/jobs",
        "jobs, in the middle": f"/jobs?after={filled.after}",
        "jobs, by method and text": "/jobs?method=fadrm&q=499",
        "jobs, none found": "/jobs?dataset=nothing",
        "queue": "/queue",
        "job": f"/jobs/{filled.other}",
        "job that waits": f"/jobs/{filled.waits}",
        "job, 3 curves of 100,000 points, 10,000 images": f"/jobs/{filled.done}",
        "its parts, as they are fetched again": f"/jobs/{filled.done}/parts",
        "its curves": f"/api/v1/jobs/{filled.done}/metrics?max_points=1000",
        "its contact sheets": f"/api/v1/jobs/{filled.done}/previews",
        "compare": f"/compare?ids={filled.done},{filled.other}",
        "new job": "/jobs/new",
        "sweeps": "/sweeps",
        "workers": "/workers",
        "storage": "/storage",
        "API: jobs": "/api/v1/jobs?limit=100",
    }


def measure(services: Services, token: str, filled: Filled, database: str) -> Iterator[Figure]:
    """Every address, one after another."""
    app = create_app(services, background=False)
    asked: list[str] = []
    event.listen(services.database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/html"}
    with TestClient(app, base_url="http://127.0.0.1", headers=headers) as client:
        for name, path in addresses(filled).items():
            times, cpu, answer = [], [], client.get(path)
            for _ in range(ASKED):
                asked.clear()
                began, began_cpu = time.perf_counter(), time.process_time()
                answer = client.get(path)
                times.append(1000 * (time.perf_counter() - began))
                cpu.append(1000 * (time.process_time() - began_cpu))
            assert answer.status_code == 200, (path, answer.text[:500])
            sizes = len(answer.content), len(gzip.compress(answer.content, 6))
            yield Figure(
                database=database,
                page=name,
                ttfb_ms=round(statistics.median(times), 1),
                slowest_ms=round(max(times), 1),
                cpu_ms=round(statistics.median(cpu), 1),
                kilobytes=round(sizes[0] / 1000, 1),
                compressed_kilobytes=round(sizes[1] / 1000, 1),
                queries=len(asked),
            )


OBSERVER = """
window.longTasks = [];
new PerformanceObserver((list) => window.longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({type: "longtask", buffered: true});
"""
BROWSED = ("jobs", "queue", "job, 3 curves of 100,000 points, 10,000 images", "compare", "new job")


@dataclass(frozen=True, slots=True)
class Visited:
    """What a browser's port needs of a site."""

    services: Services
    user: User

    def cookie(self) -> str:
        """A session."""
        with self.services.database.write() as session:
            return auth.new_token(session, self.user, "session", "bench", timedelta(days=1))[1]


def browse(services: Services, user: User, filled: Filled) -> Iterator[str]:
    """What keeps a browser's main thread for more than 50 ms, while a page opens and is scrolled through: a line a page."""
    from playwright.sync_api import sync_playwright

    from tests.pages.chromium import launch
    from tests.pages.site import Port, Site

    port = Port(cast(Site, Visited(services, user)))
    port.up()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        context = browser.new_context(base_url=port.url, viewport={"width": 1440, "height": 900})
        context.add_cookies([port.cookie])  # type: ignore[list-item]
        page = context.new_page()
        page.add_init_script(OBSERVER)
        for name in BROWSED:
            page.goto(addresses(filled)[name])
            for _ in range(10):
                page.mouse.wheel(0, 600)
                page.wait_for_timeout(200)
            tasks = page.evaluate("window.longTasks")
            yield f"{name:50} {len(tasks):3} long tasks, {max(tasks, default=0):5.0f} ms the longest, {sum(tasks):6.0f} ms in all"
        browser.close()
    port.down()


@contextmanager
def opened(url: str) -> Iterator[tuple[Services, User, str]]:
    """A server's services on an empty database, its administrator and a token."""
    with tempfile.TemporaryDirectory() as home:
        migrate.upgrade(url or f"sqlite:///{home}/fadrm.db")
        services = build(Settings(home=Path(home), database_url=url))
        with services.database.write() as session:
            user = auth.bootstrap(session)
            token = auth.api_token(session, user, "bench")[1]
        yield services, user, token
        services.close()


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--previews", type=int, default=100_000)
    parser.add_argument("--long", type=int, default=100_000, help="Points of each of the three long curves of one job.")
    parser.add_argument("--postgres", default="", help="URL of an empty database; without one, SQLite alone.")
    parser.add_argument("--postgres-only", action="store_true", help="Leave SQLite out.")
    parser.add_argument("--browser", action="store_true", help="Also the long tasks of a Chromium.")
    parser.add_argument("--json", type=Path, default=None)
    given = parser.parse_args()
    found: list[Figure] = []
    for name, url in (("SQLite", ""), ("PostgreSQL", given.postgres)):
        if (name == "PostgreSQL" and not url) or (name == "SQLite" and given.postgres_only):
            continue
        with opened(url) as (services, user, token):
            began = time.perf_counter()
            filled = fill(services, user, given.jobs, given.points, given.previews, given.long)
            print(f"{name}: filled in {time.perf_counter() - began:.0f} s", flush=True)
            for figure in measure(services, token, filled, name):
                print(
                    f"{figure.page:50} {figure.ttfb_ms:8.1f} ms, at most {figure.slowest_ms:8.1f}, CPU {figure.cpu_ms:7.1f}  "
                    f"{figure.kilobytes:8.1f} kB ({figure.compressed_kilobytes:.1f} compressed)  {figure.queries:3} queries",
                    flush=True,
                )
                found.append(figure)
            if given.browser:
                print("\n".join(browse(services, user, filled)), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")


if __name__ == "__main__":
    main()
