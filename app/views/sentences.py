"""What a job is doing, or why it waits, in one sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.models import Job, JobState, Step, StepState, Worker, utc_now
from engine.plan import StepKind

ONLINE_S = 30  # a worker that was not heard of for so long is taken for gone
DOING = {
    StepKind.PREPARE: "Reading the images",
    StepKind.TEACH: "Training the teacher",
    StepKind.SELECT: "Choosing patches",
    StepKind.RECOVER: "Recovering images",
    StepKind.RELABEL: "Making soft labels",
    StepKind.EVALUATE: "Training students",
    StepKind.PACKAGE: "Packing the download",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a job waits for lies outside of it: workers, the line, and other jobs at the same step."""

    workers_online: int
    line: tuple[str, ...]  # ids of the jobs that nobody began, in the order in which they are meant to begin
    keys_at_work: frozenset[str]  # of steps that run now

    def ahead(self, job: Job) -> int | None:
        """How many jobs are before this one; None when it is not in line."""
        return self.line.index(job.id) if job.id in self.line else None


def surroundings(session: Session, steps: Sequence[Step]) -> Surroundings:
    """Look around on behalf of these steps."""
    waiting = {step.key for step in steps if step.state == StepState.QUEUED}
    at_work = select(Step.key).where(Step.key.in_(waiting), Step.state == StepState.RUNNING)
    line = select(Job.id).where(Job.state == JobState.QUEUED).order_by(Job.priority.desc(), Job.id)
    return Surroundings(
        workers_online=workers_online(session),
        line=tuple(session.scalars(line)),
        keys_at_work=frozenset(session.scalars(at_work)) if waiting else frozenset(),
    )


def workers_online(session: Session) -> int:
    """How many workers were heard of lately."""
    since = utc_now() - timedelta(seconds=ONLINE_S)
    return session.scalar(select(func.count()).select_from(Worker).where(Worker.seen_at >= since)) or 0


def sentence(job: Job, steps: Sequence[Step], around: Surroundings) -> str:
    """For people: the state of a job as they would say it."""
    match job.state:
        case JobState.SUCCEEDED:
            return f"Finished{_after(job)}."
        case JobState.CANCELLED:
            return f"Cancelled{_after(job)}."
        case JobState.FAILED:
            return str(job.error["message"]) if job.error else "Failed."
    running = [step for step in steps if step.state == StepState.RUNNING]
    if job.cancel_requested:
        return "Stopping." if running else "Cancelled."
    if job.error:
        return f"Failed, and stopping what still runs: {job.error['message']}"
    return _working(running) if running else _waiting(job, steps, around)


def _working(running: Sequence[Step]) -> str:
    first = running[0]
    parts = [DOING[StepKind(first.kind)]]
    if first.total:
        parts.append(f": {first.done:,} of {first.total:,} {first.unit} ({100 * first.done // first.total} %)")
    if len(running) > 1:
        parts.append(f", and {_count(len(running) - 1, 'more step')} beside it")
    return "".join(parts) + "."


def _waiting(job: Job, steps: Sequence[Step], around: Surroundings) -> str:
    waiting = [step for step in steps if step.state == StepState.QUEUED]
    shared = next((step for step in waiting if step.key in around.keys_at_work), None)
    pause_s = min((step.not_before - time.time() for step in waiting if step.not_before), default=0.0)
    if around.workers_online == 0:
        return "Waiting: no worker is connected."
    if shared is not None:
        return f"Waiting for another job, which is at a step that this one needs too: {shared.title}."
    if pause_s > 0:
        return f"Waiting {pause_s:.0f} s before it tries again: the last attempt ended without a word."
    ahead = around.ahead(job)
    if ahead:
        return f"Waiting in line: {_count(ahead, 'job')} ahead."
    return "Waiting for a free worker: next in line."


def _after(job: Job) -> str:
    if job.started_at is None or job.finished_at is None:
        return ""
    return f" after {duration((job.finished_at - job.started_at).total_seconds())}"


def duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
