"""Many jobs, a scripted engine, real Celery workers, and somebody who kills whatever there is, in random order.

FADRM_CHAOS_SEED=7 make chaos plays a failing game again; FADRM_CHAOS_JOBS and FADRM_CHAOS_FAULTS say how many.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from app.errors import Conflict
from app.models import TERMINAL_JOB_STATES, Job, JobState
from app.sweeper import reaper, sweep
from engine.plan import Step
from tests.chaos import invariants
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, scripted

SEED = int(os.environ.get("FADRM_CHAOS_SEED", time.time_ns() % 100_000))
JOBS = int(os.environ.get("FADRM_CHAOS_JOBS", "30"))
FAULTS = int(os.environ.get("FADRM_CHAOS_FAULTS", JOBS))
LONGEST_S = 600.0 + 15.0 * (JOBS + FAULTS)
pytestmark = [pytest.mark.chaos, pytest.mark.redis, pytest.mark.timeout(LONGEST_S + 200.0)]
NUM_WORKERS, MOST_UNFINISHED = 2, 30
log = logging.getLogger(__name__)
TIMES: dict[str, Any] = {"lease_s": 4.0, "self_fence_s": 2.5, "sweep_s": 0.5, "max_crashes": 50, "max_attempts": 200}


class Villain:
    """Keeps the workers alive as a supervisor would, and kills them as nobody should."""

    def __init__(self, stage: Stage, redis: RedisOfTest, seed: int) -> None:
        self.stage, self.redis = stage, redis
        self.random = random.Random(seed)
        self.workers = [stage.worker() for _ in range(NUM_WORKERS)]
        self.reaper = reaper(stage.settings)
        self.faults: dict[str, int] = {}
        self._timers: list[threading.Timer] = []
        self._next_sweep = 0.0

    def strike(self) -> None:
        fault = self.random.choice(
            [self.kill_worker, self.kill_engine, self.kill_engine, self.flush, self.kill_redis, self.freeze, self.ring]
        )
        fault()
        self.faults[fault.__name__] = self.faults.get(fault.__name__, 0) + 1

    def tend(self) -> None:
        """What supervisor and app do: start workers again, sweep, and let no step wait for its pause."""
        for index, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[index] = self.stage.worker()
        if time.monotonic() > self._next_sweep:
            self._next_sweep = time.monotonic() + self.stage.settings.sweep_s
            with suppress(OperationalError):  # who froze in the middle of a transaction may hold a row
                sweep(self.stage.services, self.reaper)
                self.stage.hurry()

    def release_all(self) -> None:
        """Wait until nobody is frozen any more."""
        for timer in self._timers:
            timer.join()

    def kill_worker(self) -> None:
        self.random.choice(self.workers).kill()

    def kill_engine(self) -> None:
        for pid in self.stage.living_engines()[:1]:
            os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Longer than a lease lasts: the worker comes back as a zombie, and finds its step taken."""
        worker = self.random.choice(self.workers)
        worker.send_signal(signal.SIGSTOP)
        # From a thread: who is frozen in the middle of a transaction may hold up everybody, this one too.
        seconds = self.random.uniform(1, 2 * self.stage.settings.lease_s)
        timer = threading.Timer(seconds, worker.send_signal, (signal.SIGCONT,))
        timer.start()
        self._timers.append(timer)

    def flush(self) -> None:
        self.redis.flush()

    def kill_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    def ring(self) -> None:
        for _ in range(10):
            self.stage.services.bell.ring()


def job_of(number: int, dice: random.Random) -> list[Step]:
    """A small graph: a beginning, some shards, an end. Some shards fall by themselves; some keys are shared by jobs."""
    first = scripted(f"first {number // 2}", units=3, pause_s=0.02)
    shards = [
        scripted(
            f"shard {number}.{index}",
            needs={"first": first},
            units=dice.randint(2, 12),
            pause_s=0.05,
            checkpoint_every=2,
            faults=[{"attempt": 1, "at": 2, "do": dice.choice(["segfault", "exit", "kill"])}]
            if dice.random() < 0.2
            else [],
        )
        for index in range(dice.randint(1, 3))
    ]
    return [first, *shards, scripted(f"last {number}", needs={f"s{i}": shard for i, shard in enumerate(shards)})]


def test_nothing_is_lost_and_nothing_is_done_twice(
    make_stage: Callable[..., Stage],
    database_url: str,
    redis: RedisOfTest,
    record_property: Callable[[str, object], None],
) -> None:
    dice = random.Random(SEED)
    stage = make_stage(database_url, redis.url, **TIMES)
    villain = Villain(stage, redis, SEED)
    ids: list[str] = []
    began = time.monotonic()
    next_strike = began + 3
    strikes = FAULTS
    while (left := unfinished(stage)) or len(ids) < JOBS:
        assert time.monotonic() < began + LONGEST_S, f"seed {SEED}: {len(left)} jobs left"
        if len(ids) < JOBS and len(left) < MOST_UNFINISHED:
            ids.append(stage.submit(*job_of(len(ids), dice)))
        if time.monotonic() > next_strike and strikes:
            villain.strike()
            strikes -= 1
            # As many faults as jobs, whichever of the two are faster.
            behind = len(ids) / JOBS > (FAULTS - strikes) / FAULTS
            next_strike = time.monotonic() + dice.uniform(0.1, 1.0) * (1 if behind else 4)
        if left and dice.random() < 0.02:
            with suppress(Conflict, OperationalError):  # it ended just now, or is held by who froze
                stage.cancel(dice.choice(left))
        villain.tend()
        time.sleep(0.1)
    villain.release_all()
    took_s = round(time.monotonic() - began)
    time.sleep(1.0)
    errors = [job.error for job in map(stage.job, ids) if job.state not in {JobState.SUCCEEDED, JobState.CANCELLED}]
    assert errors == [], f"seed {SEED}"
    invariants.check(stage, ids)
    record_property("seed", SEED)
    record_property("faults", villain.faults)
    outcomes = dict(Counter(row.outcome for row in stage.attempts()))
    log.info("seed %s: %s jobs in %s s, attempts %s, faults %s", SEED, JOBS, took_s, outcomes, villain.faults)


@pytest.mark.postgres
def test_connections_that_the_database_drops_cost_nothing(
    make_stage: Callable[..., Stage], postgres_url: str, redis: RedisOfTest
) -> None:
    stage = make_stage(postgres_url, redis.url)
    stage.worker()
    job = stage.submit(*(scripted(f"step {number}", units=20, pause_s=0.05) for number in range(5)))
    drop = text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    while stage.job(job).state not in TERMINAL_JOB_STATES:
        with stage.database.engine.connect() as connection:
            connection.execute(drop)
        time.sleep(0.5)
    assert stage.job(job).state == JobState.SUCCEEDED
    assert {row.outcome for row in stage.attempts()} == {"succeeded"}
    invariants.check(stage, [job])


def unfinished(stage: Stage) -> Sequence[str]:
    with stage.database.read() as session:
        return session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES)).order_by(Job.id)).all()
