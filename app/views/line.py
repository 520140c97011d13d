"""The line of jobs that wait: in which order they are meant to begin, and about when.

The order is the one in which steps are claimed (`app.claims`), were every job done in one piece: a job stands where its
owner's share will be once their earlier jobs are done. Times are from how long such steps took lately.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app import shares
from app.models import Job, JobState, Step, StepState

LATELY = 200  # steps that the pace is taken from


@dataclass(slots=True, kw_only=True)
class Member:
    """A job that is in line or at work."""

    id: str
    owner_id: str
    name: str
    priority: int
    running: int = 0  # steps of it that run
    left_s: float = 0.0  # of work
    running_s: float = 0.0  # of it, in the steps that run
    level: float = 0.0  # what its owner will have had of the workers when this job begins, s


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Who waits, who works, and how long what is left takes."""

    waiting: tuple[Member, ...] = ()  # in order
    busy: tuple[Member, ...] = ()
    used: Mapping[str, float]  # owner -> seconds that they had of the workers lately
    is_timed: bool = False  # whether times are known

    def ahead(self, job_id: str) -> int | None:
        """How many jobs are before this one; None when it is not in line."""
        return next((place for place, member in enumerate(self.waiting) if member.id == job_id), None)

    def busy_workers(self) -> int:
        """How many workers are at something."""
        return sum(member.running for member in self.busy)

    def starts_in_s(self, job_id: str, workers: int) -> float | None:
        """Until a job begins: what every user gets before it, shared among the workers. None when nobody can know."""
        place = self.ahead(job_id)
        if place is None or not workers or not self.is_timed:
            return None
        if place < workers - self.busy_workers():
            return 0.0
        level = self.waiting[place].level
        owned: dict[str, list[Member]] = defaultdict(list)
        for member in (*self.busy, *self.waiting):
            owned[member.owner_id].append(member)
        before = (_work_until(level - self.used.get(owner, 0.0), members) for owner, members in owned.items())
        return sum(before) / workers


def _work_until(room_s: float, members: Sequence[Member]) -> float:
    """What a user gets while their share grows by so much. A step that runs is not interrupted for anybody."""
    return max(min(room_s, sum(member.left_s for member in members)), sum(member.running_s for member in members))


def line(session: Session, now: float) -> Line:
    """Look at all jobs that are under way. now: Unix time."""
    pace = _pace(session)
    members = _members(session, pace)
    used: dict[str, float] = dict(session.execute(shares.used(now)).all())
    levels = dict(used)
    for member in sorted(members, key=lambda one: (-one.priority, one.id)):
        member.level = levels.get(member.owner_id, 0.0)
        levels[member.owner_id] = member.level + member.left_s
    waiting = [member for member in members if not member.running]
    waiting.sort(key=lambda one: (round(one.level / shares.GRAIN_S), -one.priority, one.id))
    busy = tuple(member for member in members if member.running)
    return Line(waiting=tuple(waiting), busy=busy, used=used, is_timed=bool(pace))


def _members(session: Session, pace: Mapping[str, float]) -> list[Member]:
    """Every job that wants work done, with what is left of it."""
    left = case((Step.total > 0, 1.0 - 1.0 * Step.done / Step.total), else_=1.0)
    is_running = Step.state == StepState.RUNNING
    found = session.execute(
        select(
            Job.id,
            Job.owner_id,
            Job.name,
            Job.priority,
            Step.kind,
            is_running.label("runs"),
            func.count().label("steps"),
            func.sum(Step.flop * left).label("flop"),
        )
        .join(Step, Step.job_id == Job.id)
        .where(
            Job.state.in_([JobState.QUEUED, JobState.RUNNING]), Step.state.in_([StepState.QUEUED, StepState.RUNNING])
        )
        .where(is_running | (Job.paused_by.is_(None) & Job.cancel_requested.is_(False) & Job.error.is_(None)))
        .group_by(Job.id, Job.owner_id, Job.name, Job.priority, Step.kind, is_running)
        .order_by(Job.id)
    )
    members: dict[str, Member] = {}
    for row in found:
        member = members.setdefault(
            row.id, Member(id=row.id, owner_id=row.owner_id, name=row.name, priority=row.priority)
        )
        seconds = row.flop * pace.get(row.kind, pace.get("", 0.0))
        member.left_s += seconds
        if row.runs:
            member.running += row.steps
            member.running_s += seconds
    return list(members.values())


def _pace(session: Session) -> dict[str, float]:
    """Kind -> seconds that a floating-point operation took lately; "" for all kinds. Empty: nothing is known yet."""
    newest = (
        select(Step.kind, Step.flop, Step.seconds)
        .where(Step.state == StepState.SUCCEEDED, Step.cached.is_(False), Step.seconds.is_not(None), Step.flop > 0)
        .order_by(Step.id.desc())
        .limit(LATELY)
    )
    flop: dict[str, float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    for row in session.execute(newest):
        for kind in (row.kind, ""):
            flop[kind] += row.flop
            seconds[kind] += row.seconds
    return {kind: seconds[kind] / flop[kind] for kind in flop}
