"""What must be true once all is over, whatever was killed (I1 to I15). Looked at after every play.

I13, that who watches a stream is told every event once, is looked at where somebody watches: test_server.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import select, text

from app.models import Attempt, Event, Job, Metric, Step, StepState, utc_now
from app.storage.janitor import KINDS
from tests.app.histories import ENDED, check_histories
from tests.worker.stage import Stage

SECRETS = re.compile(r"fadrm_[\w-]{20,}|://[^/\s@:]*:(?!\*+@)[^/\s@]+@")


def check(stage: Stage, accepted: Iterable[str]) -> None:
    """All of it. accepted: the ids of the jobs that somebody was told of."""
    tidy(stage)
    nothing_is_lost_or_made_up(stage, set(accepted))  # I1, I2
    stage.check()  # I3, I4, I7, I10, I11, and that what is said to be whole is
    with stage.database.read() as session:
        check_histories(session)  # I4, I6, I7, I8: every event by the holder of its time
    results_are_what_was_published(stage)  # I5
    no_attempt_was_begun_twice(stage)  # I8
    nobody_ran_more_than_allowed(stage)  # I9
    the_database_is_sound(stage)  # I12
    no_secret_was_told(stage)  # I14
    nothing_is_left_on_the_disk(stage)  # I15


def tidy(stage: Stage) -> None:
    """As the janitor does: who is killed between a step's end and clearing up leaves its folder behind."""
    for item in KINDS["work"](stage.services, utc_now() + timedelta(days=1)):
        item.remove()


def nothing_is_lost_or_made_up(stage: Stage, accepted: set[str]) -> None:
    with stage.database.read() as session:
        assert set(session.scalars(select(Job.id))) == accepted


def results_are_what_was_published(stage: Stage) -> None:
    with stage.database.read() as session:
        done = session.scalars(select(Step).where(Step.state == StepState.SUCCEEDED)).all()
        outcomes = select(Attempt.step_id, Attempt.outcome).where(Attempt.outcome.in_(["succeeded", "cached"]))
        ends = Counter(step_id for step_id, _ in session.execute(outcomes))
    for step in done:
        assert ends[step.id] == 1, f"{step.title} was finished {ends[step.id]} times"
        assert step.result == stage.store.manifest(step.key).result
        assert stage.store.damaged(step.key) == []


def no_attempt_was_begun_twice(stage: Stage) -> None:
    begun = Counter((note["key"], note["attempt"], note["pid"]) for note in stage.ran("begin"))
    assert set(begun.values()) <= {1}
    with stage.database.read() as session:
        fences: dict[int, list[int]] = defaultdict(list)
        for step_id, fence in session.execute(select(Attempt.step_id, Attempt.fence).order_by(Attempt.fence)):
            fences[step_id].append(fence)
        last = dict(session.execute(select(Step.id, Step.fence)).all())
        assert set(session.scalars(select(Attempt.outcome))) <= ENDED
    for step_id, found in fences.items():
        assert found == list(range(1, last[step_id] + 1)), "a claim left no attempt"


def nobody_ran_more_than_allowed(stage: Stage) -> None:
    """At no moment, of one owner: that all jobs here have."""
    moments: list[tuple[Any, int]] = []
    for attempt in stage.attempts():
        assert attempt.finished_at is not None
        moments += [(attempt.started_at, 1), (attempt.finished_at, -1)]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    assert most <= stage.settings.max_running_per_user


def the_database_is_sound(stage: Stage) -> None:
    if stage.database.engine.dialect.name == "sqlite":
        with stage.database.engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []


def no_secret_was_told(stage: Stage) -> None:
    for told in _told(stage):
        assert not SECRETS.search(told), f"a secret was told: {told[:200]}"


def _told(stage: Stage) -> Iterator[str]:
    """Every text that people may come to see."""
    for path in stage.settings.home.glob("*.log"):
        yield from path.read_text(errors="replace").splitlines()
    with stage.database.read() as session:
        yield from (json.dumps(data) for data in session.scalars(select(Event.data)))
        yield from filter(None, session.scalars(select(Attempt.detail)))
        yield from (json.dumps(error) for error in session.scalars(select(Job.error)) if error)


def nothing_is_left_on_the_disk(stage: Stage) -> None:
    """No half-made output: of steps that are whole nothing at all, of others their checkpoints."""
    work = stage.store.root / "work"
    left = [path for path in work.glob("*/attempt-*") if any(path.iterdir())]
    with stage.database.read() as session:
        whole = set(session.scalars(select(Step.key).where(Step.state == StepState.SUCCEEDED)))
        curves = set(session.scalars(select(Metric.step_key).distinct()))
        assert curves <= set(session.scalars(select(Step.key)))
    assert [path for path in left if path.parent.name in whole] == []
    assert list(stage.store.root.glob("**/*.tmp")) == []
