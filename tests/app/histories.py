"""Whether what the jobs of a database were told makes sense. Events are only ever appended: what was wrong once is wrong still."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import jobs
from app.models import TERMINAL_JOB_STATES, TERMINAL_STEP_STATES, Event, Job, Step

ENDED = {"succeeded", "cached", "failed", "crashed", "lost", "released", "cancelled"}


def check_histories(session: Session) -> None:
    """Numbers without gap, one end a job and a step (but for those tried again), and only holders of leases speak."""
    for job in session.scalars(select(Job)).all():
        told = session.scalars(select(Event).where(Event.job_id == job.id).order_by(Event.seq)).all()
        assert [event.seq for event in told] == list(range(1, job.last_seq + 1))
        check_states(job, told)
        check_steps(jobs.steps_of(session, job.id), told)


def check_states(job: Job, told: Sequence[Event]) -> None:
    """Nothing is told after an end, unless somebody has the job tried again."""
    last = ""
    for event in told:
        assert last not in TERMINAL_JOB_STATES or (event.kind == "retry" and last != "succeeded"), (
            "it went on after its end"
        )
        last = event.data["state"] if event.kind == "job" else last if event.kind != "retry" else ""
    assert told[0].data == {"state": "queued"} and last == job.state
    assert job.state not in TERMINAL_JOB_STATES or told[-1].kind == "job"


def check_steps(steps: Sequence[Step], told: Sequence[Event]) -> None:
    """Replay each step's events: claims and ends take turns, fences rise, and only the holder speaks."""
    fences: dict[int, int] = defaultdict(int)
    holders: dict[int, int | None] = defaultdict(lambda: None)
    ends: Counter[int] = Counter()
    whole: set[int] = set()
    for event in told:
        if event.kind == "retry":
            assert not any(holders.values()), "steps were reset under their holders"
            ends.clear()
        if event.step_id is None:
            continue
        assert event.step_id not in whole, "a whole step was done again"
        if event.kind == "step" and event.data["state"] == "running":
            assert holders[event.step_id] is None and event.fence > fences[event.step_id]
            fences[event.step_id] = holders[event.step_id] = event.fence
            continue
        assert holders[event.step_id] == event.fence, "somebody spoke who did not hold the step"
        if event.kind == "step":
            assert event.data["outcome"] in ENDED
            holders[event.step_id] = None
            ends[event.step_id] += event.data["state"] in TERMINAL_STEP_STATES
            whole |= {event.step_id} if event.data["state"] == "succeeded" else set()
    for step in steps:
        assert step.fence == fences[step.id] and ends[step.id] <= 1
        assert (holders[step.id] is not None) == (step.state == "running")
