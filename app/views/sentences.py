"""What a job is doing, or why it waits, in one sentence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import workers
from app.jobs import stops
from app.leases import LONGEST_BACK_OFF_S
from app.line import Line, latest
from app.models import Job, JobState, Step, StepState, Worker
from engine.plan import StepKind
from fadrm.words import duration

MOST_NAMES = 2  # of jobs in one sentence
DOING = {
    StepKind.PREPARE: "Reading the images",
    StepKind.TEACH: "Training the teacher",
    StepKind.OBSERVE: "Measuring the images inside the teacher",
    StepKind.SELECT: "Choosing patches",
    StepKind.RECOVER: "Recovering images",
    StepKind.RELABEL: "Making soft labels",
    StepKind.EVALUATE: "Training students",
    StepKind.CONTINUAL: "Training students on classes that come in groups",
    StepKind.PACKAGE: "Packing the download",
    StepKind.EXPORT: "Writing the download in another form",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a job waits for lies outside of it: workers, the line, and other jobs at the same step."""

    workers: tuple[Worker, ...]  # that are online
    line: Line  # empty where nobody waits
    keys_at_work: frozenset[str]  # of steps that run now

    @property
    def workers_online(self) -> int:
        return len(self.workers)

    def starts_in_min(self, job: Job) -> int | None:
        """About how many minutes until a job begins; None when that is not known."""
        seconds = self.line.starts_in_s(job.id, self.workers_online)
        return None if seconds is None else round(seconds / 60)


def surroundings(session: Session, steps: Sequence[Step]) -> Surroundings:
    """Look around on behalf of these steps."""
    waiting = {step.key for step in steps if step.state == StepState.QUEUED}
    at_work = select(Step.key).where(Step.key.in_(waiting), Step.state == StepState.RUNNING)
    return Surroundings(
        workers=tuple(workers.online(session)),
        line=latest(session) if waiting else Line(used={}),
        keys_at_work=frozenset(session.scalars(at_work)) if waiting else frozenset(),
    )


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
    if stops(job):
        return f"Failed, and stopping what still runs: {job.error['message']}" if job.error else "Stopping."
    if job.paused_by is not None:
        return _pausing(job, steps, bool(running))
    return _working(running) if running else _waiting(job, steps, around)


def _pausing(job: Job, steps: Sequence[Step], runs: bool) -> str:
    if runs:
        return f"Pausing, as {job.paused_by} asked: what runs leaves a checkpoint first."
    done = sum(step.state == StepState.SUCCEEDED for step in steps)
    return f"Paused by {job.paused_by}; " + (f"keeps {done} of {len(steps)} steps." if done else "nothing is done yet.")


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
    if not around.workers:
        return "Waiting: no worker is connected."
    if shared is not None:
        return f"Waiting for another job, which is at a step that this one needs too: {shared.title}."
    if 0 < pause_s <= LONGEST_BACK_OFF_S:
        return f"Waiting {pause_s:.0f} s before it tries again: the last attempt ended without a word."
    # A step comes after those that it needs, so the first that waits is one that can run.
    obstacle = workers.obstacle(waiting[0], around.workers) if waiting else ""
    return f"Waiting: {obstacle}." if obstacle else _in_line(job, around)


def _in_line(job: Job, around: Surroundings) -> str:
    ahead, minutes = around.line.ahead(job.id) or 0, around.starts_in_min(job)
    place = f"{_ordinal(ahead + 1)} in line" if ahead else "next in line"
    if around.line.busy_workers() < around.workers_online and not ahead:
        return "Waiting for a free worker: next in line."
    parts = [f"Waiting, {place}", _busy(job, around.line)]
    return ": ".join(filter(None, parts)) + (f"; starts {_soon(minutes)}." if minutes is not None else ".")


def _busy(job: Job, now: Line) -> str:
    """What workers do instead. Jobs of others are not named: they are theirs to see."""
    if not now.busy:
        return ""
    named = [f"“{member.name}”" for member in now.busy if member.owner_id == job.owner_id]
    others = len(now.busy) - len(named)
    shown = [*named[:MOST_NAMES], *([_count(len(named) - MOST_NAMES, "more job")] if len(named) > MOST_NAMES else [])]
    if others:
        shown.append("somebody else’s job" if others == 1 else f"{others} jobs of other people")
    workers = now.busy_workers()
    return f"{_count(workers, 'worker')} {'is' if workers == 1 else 'are'} busy with {_listed(shown)}"


def _soon(minutes: int) -> str:
    if minutes < 1:
        return "in less than a minute"
    return f"in about {minutes} min" if minutes < 90 else f"in about {round(minutes / 60)} h"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in {11, 12, 13} else "th"
    return f"{number}{ending}"


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _after(job: Job) -> str:
    if job.started_at is None or job.finished_at is None:
        return ""
    return f" after {duration((job.finished_at - job.started_at).total_seconds())}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
