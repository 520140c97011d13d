"""Many jobs, a scripted engine, real Celery workers, and somebody who kills whatever there is, in random order.

FADRM_CHAOS_SEED=7 make chaos plays a failing game again; FADRM_CHAOS_JOBS says how many jobs.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select, text

from app.models import TERMINAL_JOB_STATES, Job, JobState
from app.sweeper import reaper, sweep
from engine.plan import Step
from tests.chaos import invariants
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, scripted

pytestmark = [pytest.mark.chaos, pytest.mark.redis, pytest.mark.timeout(1000)]
SEED = int(os.environ.get("FADRM_CHAOS_SEED", time.time_ns() % 100_000))
JOBS = int(os.environ.get("FADRM_CHAOS_JOBS", "30"))
NUM_WORKERS, FAULTS_PER_JOB = 2, 3
log = logging.getLogger(__name__)
TIMES = {"lease_s": 4.0, "self_fence_s": 2.5, "sweep_s": 0.5, "max_crashes": 50, "max_attempts": 200}


class Villain:
    """Keeps the workers alive as a supervisor would, and kills them as nobody should."""

    def __init__(self, stage: Stage, redis: RedisOfTest, seed: int) -> None:
        self.stage, self.redis = stage, redis
        self.random = random.Random(seed)
        self.workers = [stage.worker() for _ in range(NUM_WORKERS)]
        self.reaper = reaper(stage.settings)
        self.faults: dict[str, int] = {}
        self._timers: list[threading.Timer] = []

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
    ids = [stage.submit(*job_of(number, dice)) for number in range(JOBS)]
    cancelled = set(dice.sample(ids, JOBS // 10))
    deadline = time.monotonic() + 800
    next_strike = time.monotonic() + 3
    strikes = FAULTS_PER_JOB * JOBS
    while unfinished(stage):
        assert time.monotonic() < deadline, f"seed {SEED}: {unfinished(stage)} jobs left"
        if time.monotonic() > next_strike and strikes:
            villain.strike()
            strikes -= 1
            next_strike = time.monotonic() + dice.uniform(0.2, 2.0)
        if cancelled and dice.random() < 0.02:
            job_id = cancelled.pop()
            if stage.job(job_id).state not in TERMINAL_JOB_STATES:
                stage.cancel(job_id)
        villain.tend()
        time.sleep(0.1)
    villain.release_all()
    time.sleep(1.0)
    errors = [job.error for job in map(stage.job, ids) if job.state not in {JobState.SUCCEEDED, JobState.CANCELLED}]
    assert errors == [], f"seed {SEED}"
    invariants.check(stage, ids)
    record_property("seed", SEED)
    record_property("faults", villain.faults)
    log.info("seed %s: %s jobs, %s attempts, faults %s", SEED, JOBS, len(stage.attempts()), villain.faults)


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


def unfinished(stage: Stage) -> int:
    with stage.database.read() as session:
        return len(session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES))).all())
