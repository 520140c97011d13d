"""Real Celery workers on a real Redis with a scripted engine: who is killed when, and how soon all is well again."""

from __future__ import annotations

import signal
import time

import pytest
from sqlalchemy import select

from app.models import JobState, Worker
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, kill, scripted

pytestmark = pytest.mark.redis


def test_a_bell_wakes_a_worker_which_shows_itself(lit_stage: Stage) -> None:
    lit_stage.worker()
    lit_stage.until(lambda: workers(lit_stage))
    job = lit_stage.submit(scripted("one"))
    assert lit_stage.until_ended(job) == [JobState.SUCCEEDED]
    (row,) = workers(lit_stage)
    assert row.id.endswith(":cpu:0") and row.device == "cpu" and row.device_name
    lit_stage.check()


def test_a_drained_worker_leaves_within_seconds_and_the_next_one_goes_on(lit_stage: Stage) -> None:
    step = scripted("long", units=60, pause_s=0.05)
    job = lit_stage.submit(step)
    first = lit_stage.worker()
    lit_stage.until_done(step, 3)
    began = time.monotonic()
    first.send_signal(signal.SIGTERM)
    assert first.wait(10) == 0
    assert time.monotonic() - began < 4
    assert lit_stage.step(step).state == "queued" and workers(lit_stage) == []
    lit_stage.worker()
    assert lit_stage.until_ended(job) == [JobState.SUCCEEDED]
    assert [row.outcome for row in lit_stage.attempts()] == ["released", "succeeded"]
    resumed = [event.data["resumed_at"] for event in lit_stage.events(job) if event.kind == "started"]
    assert resumed[0] == 0 and resumed[1] >= 3
    lit_stage.check()


def test_a_killed_worker_takes_its_engine_along_and_its_next_life_goes_on_at_once(lit_stage: Stage) -> None:
    object.__setattr__(lit_stage.settings, "lease_s", 600.0)  # nobody takes the step away before the test has failed
    step = scripted("long", units=40, pause_s=0.05, checkpoint_every=1)
    job = lit_stage.submit(step)
    first = lit_stage.worker()
    lit_stage.until_done(step, 5)
    kill(first.pid)
    lit_stage.until(lambda: not lit_stage.living_engines(), 2.0)
    lit_stage.worker()
    lit_stage.until(lambda: len(lit_stage.attempts()) == 2)
    assert lit_stage.until_ended(job) == [JobState.SUCCEEDED]
    assert [row.outcome for row in lit_stage.attempts()] == ["lost", "succeeded"]
    lit_stage.check()


def test_redis_may_die_and_come_back_empty(lit_stage: Stage, redis: RedisOfTest) -> None:
    step = scripted("long", units=20, pause_s=0.05)
    running = lit_stage.submit(step)
    worker = lit_stage.worker()
    lit_stage.until_done(step, 2)
    redis.kill()
    late = lit_stage.submit(scripted("rung for in vain"))
    assert lit_stage.until_ended(running, late) == [JobState.SUCCEEDED] * 2  # who is at work needs no bell
    redis.start()
    later = lit_stage.submit(scripted("after the return"))
    lit_stage.until(lambda: worker.poll() is not None or lit_stage.job(later).state == JobState.SUCCEEDED, 90.0)
    if worker.poll() is not None:  # Celery came back deaf, as it does now and then: its supervisor starts another
        lit_stage.worker()
    assert lit_stage.until_ended(later) == [JobState.SUCCEEDED]
    assert [row.outcome for row in lit_stage.attempts()] == ["succeeded"] * 3
    lit_stage.check()


def test_a_lost_bell_costs_seconds(lit_stage: Stage) -> None:
    lit_stage.worker()
    lit_stage.until(lambda: workers(lit_stage))
    time.sleep(1.0)
    lit_stage.services.bell.ring = lambda: None  # type: ignore[method-assign]
    job = lit_stage.submit(scripted("unannounced"))
    assert lit_stage.until_ended(job, timeout_s=5.0) == [JobState.SUCCEEDED]


def test_two_workers_share_the_shards_of_a_job(lit_stage: Stage) -> None:
    first = scripted("patches")
    shards = [scripted(f"shard {index}", needs={"patches": first}, units=15, pause_s=0.05) for index in range(6)]
    last = scripted("package", needs={f"images.{index}": shard for index, shard in enumerate(shards)})
    lit_stage.worker()
    lit_stage.worker()
    lit_stage.until(lambda: len(workers(lit_stage)) == 2)
    job = lit_stage.submit(first, *shards, last)
    assert lit_stage.until_ended(job) == [JobState.SUCCEEDED]
    by_worker = {row.worker for row in lit_stage.attempts()}
    assert len(by_worker) == 2 and len(lit_stage.ran()) == 8
    assert len({note["pid"] for note in lit_stage.ran()}) <= 4  # engines stay for the steps of their job
    lit_stage.check()


def test_cancelling_reaches_a_worker_within_seconds(lit_stage: Stage) -> None:
    step = scripted("long", units=1000, pause_s=0.05)
    job = lit_stage.submit(step)
    lit_stage.worker()
    lit_stage.until_done(step, 2)
    began = time.monotonic()
    lit_stage.cancel(job)
    assert lit_stage.until_ended(job) == [JobState.CANCELLED]
    assert time.monotonic() - began < 3
    lit_stage.check()


def test_other_pools_are_refused(lit_stage: Stage) -> None:
    process = lit_stage.worker(pool="prefork")
    assert process.wait(20) != 0
    assert "-P solo" in lit_stage.log()


def workers(stage: Stage) -> list[Worker]:
    with stage.database.read() as session:
        return list(session.scalars(select(Worker)))
