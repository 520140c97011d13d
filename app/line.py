"""The line of jobs that wait: in which order they are meant to begin, and about when.

The order is the one in which steps are claimed (`app.claims`), were every job done in one piece: a job stands where its
owner's share will be once their earlier jobs are done. Times are from how long such steps took lately.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, case, func, select
from sqlalchemy.orm import Session

from app import shares
from app.models import Job, JobState, Step, StepState

LATELY = 200  # steps that the pace is taken from
GOOD_FOR_S = 1.0  # a line in which nobody came, went on or went
UNDER_WAY = (JobState.QUEUED, JobState.RUNNING)


@dataclass(slots=True)
class Member:
    """A job that is in line or at work."""

    id: str
    owner_id: str
    name: str
    priority: int
    running: int  # steps of it that run
    left_s: float  # of work
    running_s: float  # of it, in the steps that run
    level: float = 0.0  # what its owner will have had of the workers when this job begins, s


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Who waits, who works, and how long what is left takes."""

    waiting: tuple[Member, ...] = ()  # in order
    busy: tuple[Member, ...] = ()
    used: Mapping[str, float]  # owner -> seconds that they had of the workers lately
    is_timed: bool = False  # whether times are known
    _places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", {member.id: place for place, member in enumerate(self.waiting)})

    def ahead(self, job_id: str) -> int | None:
        """How many jobs are before this one; None when it is not in line."""
        return self._places.get(job_id)

    def busy_workers(self) -> int:
        """How many workers are at something."""
        return sum(member.running for member in self.busy)

    def starts_in_s(self, job_id: str, workers: int) -> float | None:
        """Until a job begins: what every user gets before it, shared among the workers. None when nobody can know."""
        place = self.ahead(job_id)
        return None if place is None else self._starts_in_s(place, self.waiting[place].level, workers)

    def another_starts_in_s(self, owner_id: str, workers: int) -> float | None:
        """Until one more job of this user would begin, were it submitted now; as `starts_in_s`."""
        before = sum(
            one.left_s for one in (*self.busy, *self.waiting) if one.owner_id == owner_id and one.priority >= 0
        )
        level = self.used.get(owner_id, 0.0) + before
        place = sum(_rank(one) <= (round(level / shares.GRAIN_S), 0, "~") for one in self.waiting)
        return self._starts_in_s(place, level, workers)

    def _starts_in_s(self, place: int, level: float, workers: int) -> float | None:
        if not workers:
            return None
        if place < workers - self.busy_workers():
            return 0.0
        if not self.is_timed:
            return None
        owned: dict[str, list[Member]] = defaultdict(list)
        for member in (*self.busy, *self.waiting):
            owned[member.owner_id].append(member)
        before = (_work_until(level - self.used.get(owner, 0.0), members) for owner, members in owned.items())
        return sum(before) / workers


def _rank(member: Member) -> tuple[int, int, str]:
    """The least is first in line."""
    return round(member.level / shares.GRAIN_S), -member.priority, member.id


def _work_until(room_s: float, members: Sequence[Member]) -> float:
    """What a user gets while their share grows by so much. A step that runs is not interrupted for anybody."""
    return max(min(room_s, sum(member.left_s for member in members)), sum(member.running_s for member in members))


Marker = tuple[int, int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    marker: Marker
    at: float  # time.monotonic
    line: Line


_seen: WeakKeyDictionary[Engine, _Seen] = WeakKeyDictionary()
_looking = threading.Lock()


def latest(session: Session) -> Line:
    """The line as it is now. Many ask at once, so one looks for all: anew when a job came, went on or went, or a second passed."""
    bind = session.get_bind()
    engine = bind.engine if isinstance(bind, Connection) else bind
    with _looking:
        marker, now = _marker(session), time.monotonic()
        seen = _seen.get(engine)
        if seen is None or seen.marker != marker or now - seen.at > GOOD_FOR_S:
            seen = _seen[engine] = _Seen(marker=marker, at=now, line=line(session, time.time()))
        return seen.line


def _marker(session: Session) -> Marker:
    """Another one after every event of a job that is under way."""
    asked = select(func.count(), func.coalesce(func.sum(Job.last_seq), 0), func.coalesce(func.max(Job.id), ""))
    count, events, newest = session.execute(asked.where(Job.state.in_(UNDER_WAY))).one()
    return count, events, newest


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
    waiting.sort(key=_rank)
    busy = tuple(member for member in members if member.running)
    return Line(waiting=tuple(waiting), busy=busy, used=used, is_timed=bool(pace))


def _members(session: Session, pace: Mapping[str, float]) -> list[Member]:
    """Every job that wants work done, with what is left of it."""
    left = case((Step.total > 0, 1.0 - 1.0 * Step.done / Step.total), else_=1.0)
    seconds = Step.flop * left * (case(pace, value=Step.kind, else_=pace[""]) if pace else 0.0)
    is_running = Step.state == StepState.RUNNING
    found = session.execute(
        select(
            Job.id,
            Job.owner_id,
            Job.name,
            Job.priority,
            func.sum(case((is_running, 1), else_=0)),
            func.sum(seconds),
            func.sum(case((is_running, seconds), else_=0.0)),
        )
        .join(Step, Step.job_id == Job.id)
        .where(Job.state.in_(UNDER_WAY), Step.state.in_([StepState.QUEUED, StepState.RUNNING]))
        .where(is_running | (Job.paused_by.is_(None) & Job.cancel_requested.is_(False) & Job.error.is_(None)))
        .group_by(Job.id, Job.owner_id, Job.name, Job.priority)
        .order_by(Job.id)
    )
    return [Member(*row) for row in found]


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
