"""Workers of machines that share nothing but a bucket and a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.models import JobState, StepState
from engine.plan import StepKind
from engine.store import Store
from tests.bucket import NAME, S3Server, s3_server
from tests.worker.conftest import RedisOfTest
from tests.worker.real import SETTINGS, tiny_plan
from tests.worker.stage import Stage, scripted

BUCKET = f"s3://{NAME}/workers"


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, server: S3Server, redis: RedisOfTest) -> Iterator[Stage]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    made = Stage(tmp_path, url, redis.url, bucket=BUCKET, s3_endpoint=server.url, store=tmp_path / "api")
    yield made
    made.close()


@pytest.mark.redis
@pytest.mark.slow
def test_two_machines_do_a_job_and_a_third_hands_out_its_download(stage: Stage, tmp_path: Path) -> None:
    plan = tiny_plan()
    stage.worker("worker.tasks", **SETTINGS, FADRM_STORE=str(tmp_path / "one"))
    stage.worker("worker.tasks", **SETTINGS, FADRM_STORE=str(tmp_path / "two"))
    job = stage.submit(*plan.steps)
    assert stage.until_ended(job, timeout_s=180) == [JobState.SUCCEEDED]
    assert stage.store.damaged(plan.package) == []
    [(name, entry)] = stage.store.manifest(plan.package).files.items()
    assert hashlib.sha256((stage.store.step(plan.package) / name).read_bytes()).hexdigest() == entry.sha256
    shards = [step.key for step in plan.steps if step.kind == StepKind.RECOVER]
    assert all(any(Store(tmp_path / place).is_at_hand(key) for place in ("one", "two")) for key in shards)
    assert set(stage.store.whole_keys()) == {step.key for step in plan.steps}


def test_a_bucket_that_is_away_costs_a_step_nothing_but_time(stage: Stage, server: S3Server) -> None:
    step = scripted("patient")
    job = stage.submit(step)
    server.close()
    carrier = stage.carrier()
    assert carrier.drain() == 0  # nothing is begun
    assert stage.step(step).state == StepState.QUEUED and stage.step(step).attempts == 0
    assert stage.job(job).state == JobState.QUEUED
