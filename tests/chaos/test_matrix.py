"""Every fault at every stage of a job's life, through real Celery, Redis and engine processes.

FADRM_CHAOS_REPEATS=20 make chaos plays each cell so often. What a fault hits is chosen; when, within a stage, is chance.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.models import TERMINAL_JOB_STATES
from app.queue import QUEUE, WORK, celery_app
from app.sweeper import reaper, sweep
from engine.plan import Step
from tests.chaos import invariants
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, scripted

pytestmark = [pytest.mark.redis, pytest.mark.timeout(600)]
REPEATS = int(os.environ.get("FADRM_CHAOS_REPEATS", "1"))
TIMES: dict[str, Any] = {"lease_s": 4.0, "self_fence_s": 2.5, "sweep_s": 0.5, "max_crashes": 50, "max_attempts": 200}


class Game:
    """One job, one worker that a supervisor would keep alive, and a fault."""

    def __init__(self, stage: Stage, redis: RedisOfTest) -> None:
        self.stage, self.redis = stage, redis
        self.reaper = reaper(stage.settings)
        self.worker = stage.worker()
        self.accepted: list[str] = []
        self.first = scripted("first", units=30, pause_s=0.05, checkpoint_every=5)
        self.last = scripted("last", units=5, pause_s=0.02, needs={"first": self.first})
        self._timers: list[threading.Timer] = []

    def submit(self) -> str:
        self.accepted.append(self.stage.submit(self.first, self.last))
        return self.accepted[-1]

    def tend(self) -> None:
        """What supervisor and app do."""
        if self.worker.poll() is not None:
            self.worker = self.stage.worker()
        with suppress(OperationalError):  # who froze in the middle of a transaction may hold a row
            sweep(self.stage.services, self.reaper)
            self.stage.hurry()

    def until(self, condition: Callable[[], object], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.stage._last_words()
            self.tend()
            time.sleep(0.05)

    def rest(self) -> None:
        """Wait until nobody is frozen any more, and has done what they do then."""
        for timer in self._timers:
            timer.join()
        time.sleep(0.5)

    def at(self, step: Step, done: int) -> bool:
        return self.stage.step(step).done >= done

    def is_over(self) -> bool:
        return all(self.stage.job(job).state in TERMINAL_JOB_STATES for job in self.accepted)

    # Stages: what the job is at when the fault comes.

    def queued(self) -> None:
        self.submit()

    def training(self) -> None:
        self.submit()
        self.until(lambda: self.at(self.first, 1))

    def checkpointed(self) -> None:
        job = self.submit()
        self.until(lambda: any(event.kind == "checkpoint" for event in self.stage.events(job)))

    def publishing(self) -> None:
        self.submit()
        self.until(lambda: self.at(self.first, 29))

    def cancelling(self) -> None:
        self.training()
        self.stage.cancel(self.accepted[0])

    # Faults.

    def kill_engine(self) -> None:
        for pid in self.stage.living_engines():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_worker(self) -> None:
        self.worker.kill()

    def kill_both(self) -> None:
        self.kill_worker()
        self.kill_redis()

    def kill_redis(self) -> None:
        self.redis.kill()
        self.redis.start()

    def flush_redis(self) -> None:
        self.redis.flush()

    def freeze_redis(self) -> None:
        self._freeze(self.redis.process, 3.0)

    def freeze_worker(self) -> None:
        """For two leases: another takes its step, and it comes back as a zombie."""
        self._freeze(self.worker, 2 * self.stage.settings.lease_s)
        self.worker = self.stage.worker()

    def ring_often(self) -> None:
        for _ in range(1000):
            self.stage.services.bell.ring()

    def forge_bells(self) -> None:
        """Whoever can write to Redis can ring, and nothing else."""
        self.redis.forge(b"\x00 not JSON", b"[]", b"{}")
        forger = celery_app(self.redis.url)
        forger.send_task(WORK, args=[self.accepted], kwargs={"step": 1}, queue=QUEUE)
        forger.send_task("os.system", args=["false"], queue=QUEUE)
        forger.send_task(WORK, queue=QUEUE, serializer="pickle")

    def lock_database(self) -> None:
        """Nobody can write for longer than a worker is patient."""
        with self.stage.database.write() as session:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
            time.sleep(3.0)

    def _freeze(self, process: subprocess.Popen[Any], seconds: float) -> None:
        process.send_signal(signal.SIGSTOP)
        self._timers.append(threading.Timer(seconds, process.send_signal, (signal.SIGCONT,)))
        self._timers[-1].start()


FAULTS = (
    Game.kill_engine,
    Game.kill_worker,
    Game.kill_both,
    Game.kill_redis,
    Game.flush_redis,
    Game.freeze_redis,
    Game.freeze_worker,
    Game.ring_often,
    Game.forge_bells,
    Game.lock_database,
)
STAGES = (Game.queued, Game.training, Game.checkpointed, Game.publishing, Game.cancelling)


def play(game: Game, stage: Callable[[Game], None], fault: Callable[[Game], None], chance: random.Random) -> float:
    """The seconds from the fault to the end of the job."""
    stage(game)
    time.sleep(chance.uniform(0.0, 0.2))
    began = time.monotonic()
    fault(game)
    game.until(game.is_over)
    took = time.monotonic() - began
    wanted = {"cancelled"} if stage is Game.cancelling else {"succeeded"}
    assert {game.stage.job(job).state for job in game.accepted} <= wanted | {"succeeded"}
    game.rest()
    invariants.check(game.stage, game.accepted)
    return took


@pytest.mark.chaos
@pytest.mark.parametrize("repeat", range(REPEATS))
@pytest.mark.parametrize("stage", STAGES, ids=lambda one: one.__name__)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_whatever_happens_whenever_the_job_ends_once(
    make_stage: Callable[..., Stage],
    database_url: str,
    redis: RedisOfTest,
    fault: Callable[[Game], None],
    stage: Callable[[Game], None],
    repeat: int,
    record_property: Callable[[str, object], None],
) -> None:
    game = Game(make_stage(database_url, redis.url, **TIMES), redis)
    record_property("seconds", round(play(game, stage, fault, random.Random(repeat)), 1))


def test_a_worker_that_is_killed_at_work_costs_nothing(
    make_stage: Callable[..., Stage], sqlite_url: str, redis: RedisOfTest
) -> None:
    """One cell, for every day."""
    game = Game(make_stage(sqlite_url, redis.url, **TIMES), redis)
    play(game, Game.checkpointed, Game.kill_worker, random.Random(0))
    assert {row.outcome for row in game.stage.attempts()} == {"lost", "succeeded"}
