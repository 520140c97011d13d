"""How long a step stands still when what works on it is killed, with the times of a team's server. Figures of docs/reliability.md.

    python -m benchmarks.recovery [--repeats 5] [--database URL]

A scripted engine (it imports no torch), real Celery workers, Redis and sweeper. Prints one JSON object a fault: seconds from
the kill to the moment when the next attempt has begun.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.settings import Settings
from app.sweeper import Sweeper
from tests.worker.conftest import RedisOfTest
from tests.worker.stage import Stage, scripted

PATIENCE_S = 120.0
USUAL = Settings().model_dump(include={"heartbeat_s", "self_fence_s", "lease_s", "sweep_s", "grace_s"})


def kill_engine(stage: Stage) -> float:
    """Its worker sees it at once."""
    os.kill(stage.living_engines()[0], signal.SIGKILL)
    return time.monotonic()


def kill_worker_and_start_it(stage: Stage) -> float:
    """As its supervisor does."""
    stage.processes[-1].kill()
    killed = time.monotonic()
    stage.worker()
    return killed


def kill_worker_beside_another(stage: Stage) -> float:
    """Nobody starts it again: the other one takes the step when the lease is over."""
    stage.worker()
    time.sleep(15.0)  # it is up, and waits
    stage.processes[-2].kill()
    return time.monotonic()


FAULTS: dict[str, Callable[[Stage], float]] = {
    "engine killed": kill_engine,
    "worker killed, started again": kill_worker_and_start_it,
    "worker killed, another is there": kill_worker_beside_another,
}


def measure(stage: Stage, fault: Callable[[Stage], float], number: int) -> float:
    """Seconds without work."""
    step = scripted(f"{fault.__name__} {number}", units=100_000, pause_s=0.05, checkpoint_every=1)
    job = stage.submit(step)
    stage.until(lambda: stage.step(step).done >= 5, PATIENCE_S)
    fence = stage.step(step).fence
    killed = fault(stage)
    stage.until(lambda: _begun(stage, job, fence), PATIENCE_S)
    took = time.monotonic() - killed
    stage.cancel(job)
    stage.until_ended(job, timeout_s=PATIENCE_S)
    return round(took, 2)


def _begun(stage: Stage, job: str, fence: int) -> bool:
    return any(event.kind == "started" and event.fence > fence for event in stage.events(job))


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="", help="an empty PostgreSQL database; by default SQLite")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            redis = RedisOfTest(home / "redis")
            stage = Stage(home, options.database or f"sqlite:///{home / 'test.db'}", redis.url, **USUAL)
            sweeper = Sweeper(stage.services)
            sweeper.start()
            stage.worker()
            try:
                took = [measure(stage, fault, number) for number in range(options.repeats)]
                print(
                    json.dumps({"fault": name, "least_s": min(took), "most_s": max(took), "took_s": took}), flush=True
                )
            finally:
                sweeper.stop()
                stage.close()
                redis.kill()


if __name__ == "__main__":
    main()
