"""What the matrix has no column for: power cuts, full disks, an API that is killed while jobs are
accepted, cancelling at any moment, an engine that tells too much. Real processes, one short play each.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from app.errors import Conflict
from app.models import Job, Metric
from app.sweeper import expire_all
from benchmarks.served import SPEC, serving
from engine.plan import Step
from fadrm import Client
from tests.app.histories import check_histories
from tests.chaos import invariants
from tests.chaos.test_matrix import STAGES, TIMES, Game
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, scripted

pytestmark = [pytest.mark.chaos, pytest.mark.redis, pytest.mark.timeout(900)]
DISK_BYTES = 8 * 2**20
NUM_CLIENTS, JOBS_EACH, NUM_KILLS = 4, 12, 4
NUM_CANCELLED = 30
MIB = 2**20


@pytest.mark.parametrize("stage", STAGES, ids=lambda one: one.__name__)
def test_what_is_on_the_disk_when_all_is_killed_is_sound_and_goes_on(
    make_stage: Callable[..., Stage], tmp_path: Path, redis: RedisOfTest, stage: Callable[[Game], None]
) -> None:
    """As after a power cut: files alone are left, on another machine, and a server starts there."""
    game = Game(make_stage(f"sqlite:///{tmp_path / 'home' / 'test.db'}", redis.url, **TIMES), redis)
    stage(game)
    game.kill_worker()
    game.stage.until(lambda: not game.stage.living_engines(), 5.0)
    game.stage.close()
    shutil.copytree(tmp_path / "home", tmp_path / "copy", ignore=shutil.ignore_patterns("*-shm"))
    copy = Stage(tmp_path / "copy", f"sqlite:///{tmp_path / 'copy' / 'test.db'}", **TIMES)
    with closing(copy):
        invariants.the_database_is_sound(copy)
        with copy.database.read() as session:
            check_histories(session)
        expire_all(copy.services)
        copy.hurry()
        copy.carrier().drain()
        assert copy.job(game.accepted[0]).state == ("cancelled" if stage is Game.cancelling else "succeeded")
        invariants.check(copy, game.accepted)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of some MiB. Only root may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", folder], check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free. Returns the file to be removed."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return ballast


def submit_until_refused(game: Game) -> None:
    """Some fit into pages that the database has already."""
    for _ in range(100):
        game.submit()


def is_at_work(game: Game) -> bool:
    """Whether an engine does a step. One that has told how its attempt ended waits for the worker, and that for the disk."""
    return "attempt over" not in game.stage.log() and bool(game.stage.living_engines())


@pytest.mark.parametrize("what", ["the store", "the store and the database"])
def test_a_disk_that_is_full_for_a_while_costs_time_alone(
    make_stage: Callable[..., Stage], tmp_path: Path, small_disk: Path, redis: RedisOfTest, what: str
) -> None:
    folder = small_disk if "database" in what else tmp_path
    settings = TIMES | {"store": small_disk / "store", "reserve_bytes": DISK_BYTES // 16}
    game = Game(make_stage(f"sqlite:///{folder / 'test.db'}", redis.url, **settings), redis)
    game.checkpointed()
    ballast = fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "more").write_bytes(bytes(2**16))
    if "database" in what:
        with pytest.raises(OperationalError):  # 503 and Retry-After
            submit_until_refused(game)
    until = time.monotonic() + 30.0
    while is_at_work(game):
        assert time.monotonic() < until, "an engine works on without a lease, or without a disk"
        with suppress(OperationalError):
            game.tend()
        time.sleep(0.1)
    assert not game.is_over()
    ballast.unlink()
    game.until(game.is_over)
    assert {game.stage.job(job).state for job in game.accepted} == {"succeeded"}
    told = {(row.outcome, row.detail) for row in game.stage.attempts() if row.outcome != "succeeded"}
    assert "database" in what or ("crashed", "No space is left on the disk.") in told
    game.rest()
    invariants.check(game.stage, game.accepted)


def test_cancelled_at_any_moment_a_job_ends_once(
    make_stage: Callable[..., Stage], database_url: str, redis: RedisOfTest
) -> None:
    dice = random.Random(7)
    game = Game(make_stage(database_url, redis.url, **TIMES), redis)
    for number in range(NUM_CANCELLED):
        job = game.stage.submit(*small_job(number))
        game.accepted.append(job)
        time.sleep(dice.uniform(0.0, 1.0))
        with suppress(Conflict):  # it has succeeded already
            game.stage.cancel(job)
            game.stage.cancel(job)  # twice is once
    game.until(game.is_over)
    states = {job: game.stage.job(job) for job in game.accepted}
    assert {row.state for row in states.values()} <= {"cancelled", "succeeded"}
    assert any(row.state == "cancelled" for row in states.values())
    game.rest()
    invariants.check(game.stage, game.accepted)


def small_job(number: int) -> list[Step]:
    first = scripted(f"first {number}", units=4, pause_s=0.05, checkpoint_every=2)
    return [first, scripted(f"last {number}", units=2, pause_s=0.05, needs={"first": first})]


def test_an_engine_that_tells_without_end_costs_its_worker_little(
    make_stage: Callable[..., Stage], sqlite_url: str, redis: RedisOfTest
) -> None:
    """20,000 points at once, ten times."""
    game = Game(make_stage(sqlite_url, redis.url, **TIMES), redis)
    game.until(lambda: "worker" in game.stage.log())
    floods = [{"attempt": 1, "at": at, "do": "flood"} for at in range(10)]
    game.accepted.append(game.stage.submit(scripted("flood", units=10, pause_s=0.2, faults=floods)))
    game.until(game.is_over)
    assert peak_bytes(game.worker.pid) < 200 * MIB
    beats = len([event for event in game.stage.events(game.accepted[0]) if event.kind == "metrics"])
    with game.stage.database.read() as session:
        points = session.scalar(select(func.count()).select_from(Metric)) or 0
    assert 0 < points <= 500 * beats
    invariants.check(game.stage, game.accepted)


def peak_bytes(pid: int) -> int:
    """The most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def test_what_was_answered_is_kept_and_what_is_sent_again_is_there_once(database_url: str) -> None:
    """Clients submit, each job under a key of its own, while the API is killed and started again and again."""
    told: dict[str, str] = {}
    with serving("" if database_url.startswith("sqlite") else database_url) as served:

        def submit(client: int) -> None:
            with Client(f"http://127.0.0.1:{served.port}", served.token) as api:
                api.jobs(limit=1)  # it is there, so it may come back
                for number in range(JOBS_EACH):
                    key = f"{client}-{number}"
                    told[key] = api.submit({"spec": SPEC | {"seed": 100 * client + number}}, key=key).id

        threads = [threading.Thread(target=submit, args=(client,)) for client in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for kill in range(NUM_KILLS):
            while len(told) <= kill * NUM_CLIENTS * JOBS_EACH // NUM_KILLS:
                time.sleep(0.001)
            served.process.kill()
            served.process.wait()
            served.start()
        for thread in threads:
            thread.join(600)
        with served.database.read() as session:
            found = {str(key): id_ for key, id_ in session.execute(select(Job.idempotency_key, Job.id))}
            check_histories(session)
    assert told == found and len(told) == NUM_CLIENTS * JOBS_EACH
