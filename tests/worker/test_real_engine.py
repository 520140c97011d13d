"""The real engine through real Celery workers and a real Redis: whoever is killed, the images are the same, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.models import JobState
from tests.worker.conftest import RedisOfTest
from tests.worker.real import SETTINGS, images_of, tiny_plan, until_recovering
from tests.worker.stage import Stage, kill

pytestmark = [pytest.mark.redis, pytest.mark.slow]
WORKER = "worker.tasks"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """The images of one worker that nobody disturbs."""
    home = tmp_path_factory.mktemp("undisturbed")
    redis = RedisOfTest(home / "redis")
    stage = Stage(home, f"sqlite:///{home / 'test.db'}", redis.url)
    try:
        job = stage.submit(*tiny_plan().steps)
        stage.worker(WORKER, **SETTINGS)
        assert stage.until_ended(job, timeout_s=120) == [JobState.SUCCEEDED]
        stage.check()
        yield images_of(stage)
    finally:
        stage.close()
        redis.kill()


def test_killing_engine_worker_and_redis_and_going_on_with_two_workers_changes_no_byte(
    lit_stage: Stage, redis: RedisOfTest, undisturbed: dict[str, bytes]
) -> None:
    job = lit_stage.submit(*tiny_plan().steps)
    worker = lit_stage.worker(WORKER, **SETTINGS)
    until_recovering(lit_stage)
    kill(lit_stage.living_engines()[0])
    until_recovering(lit_stage, after=2)
    redis.kill()
    kill(worker.pid)
    lit_stage.until(lambda: not lit_stage.living_engines(), 3.0)
    redis.start()
    for _ in range(2):
        lit_stage.worker(WORKER, **SETTINGS)
    assert lit_stage.until_ended(job, timeout_s=120) == [JobState.SUCCEEDED]
    outcomes = {row.outcome for row in lit_stage.attempts()}
    assert {"crashed", "lost", "succeeded"} <= outcomes
    resumed = [event.data["resumed_at"] for event in lit_stage.events(job) if event.kind == "started"]
    assert sum(at > 0 for at in resumed) >= 2
    assert images_of(lit_stage) == undisturbed
    lit_stage.check()
