"""Those who watch, and what they have been sent.

The events of a job are numbered without gap, so a watcher is a cursor and nothing more: what was lately seen it takes from
the channel, and what is older it reads from the database. No watcher has a queue, so none can overflow or lose anything.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from app.db import Database
from app.frames import PAGE, RECENT, Frame, frame, read_frames
from app.models import TERMINAL_JOB_STATES, User

RESET_BEHIND = 20_000  # who is so far behind reads anew what there is, instead of how it came about


class Following(NamedTuple):
    """A job to follow: how it stood when it was looked up, and the number of the last event that is known already."""

    job_id: str
    state: str
    last_seq: int
    after: int

    @property
    def is_over(self) -> bool:
        """Whether there will be no event past `after`."""
        return self.state in TERMINAL_JOB_STATES and self.after >= self.last_seq


class Watcher(ABC):
    """Somebody who follows a stream."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.news = asyncio.Event()
        self.news.set()

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return False

    @abstractmethod
    async def due(self) -> bytes:
        """What is to be sent now."""


@dataclass(slots=True, eq=False)
class Channel:
    """What was lately seen of one job."""

    head: int
    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=RECENT))
    watchers: set[Watcher] = field(default_factory=set)

    def since(self, sent: int) -> list[Frame] | None:
        """The frames after a number; None when the database must be asked."""
        if sent >= self.head:
            return []
        if not self.frames or self.frames[0].seq > sent + 1:
            return None
        return list(islice(self.frames, sent + 1 - self.frames[0].seq, None))

    def move(self, head: int, frames: Sequence[Frame]) -> None:
        """Take new frames, which go on where the last ones ended; none when there are more than are kept."""
        if frames:
            self.frames.extend(frames)
        else:
            self.frames.clear()
        self.head = frames[-1].seq if frames else head
        for watcher in self.watchers:
            watcher.news.set()


class JobsWatcher(Watcher):
    """Follows some jobs, each from a number on, until all have ended."""

    def __init__(self, user: User, database: Database, channels: dict[str, Channel], jobs: Sequence[Following]) -> None:
        super().__init__(user)
        self._database, self._channels = database, channels
        self._sent = {job.job_id: job.after for job in jobs}  # in the order of the numbers in the stream's ids
        self._ended: set[str] = set()
        self._first: list[bytes] = []
        for job in jobs:
            channels.setdefault(job.job_id, Channel(head=job.last_seq)).watchers.add(self)
            self._begin(job)

    def _begin(self, job: Following) -> None:
        if not 0 <= job.last_seq - job.after <= RESET_BEHIND:
            self._sent[job.job_id] = job.last_seq
            self._first.append(frame("reset", {"job_id": job.job_id, "last_seq": job.last_seq}, self._id))
        if job.state in TERMINAL_JOB_STATES and self._sent[job.job_id] >= job.last_seq:
            self._first.append(self._end(job.job_id, job.state))

    @property
    def is_done(self) -> bool:
        return len(self._ended) == len(self._sent)

    @property
    def _id(self) -> str:
        """Where this stream is: what a browser sends back when it comes again."""
        return ",".join(map(str, self._sent.values()))

    async def due(self) -> bytes:
        parts, self._first = self._first, []
        for job_id in self._sent:
            if job_id not in self._ended:
                parts.extend(self._take(job_id, await self._frames(job_id)))
        return b"".join(parts)

    async def _frames(self, job_id: str) -> list[Frame]:
        found = self._channels[job_id].since(self._sent[job_id])
        if found is not None:
            return found
        found = await asyncio.to_thread(read_frames, self._database, job_id, self._sent[job_id])
        if len(found) == PAGE:
            self.news.set()  # there may be more
        return found

    def _take(self, job_id: str, frames: Sequence[Frame]) -> list[bytes]:
        parts = []
        for one in frames:
            self._sent[job_id] = one.seq
            parts.append(one.body + f"id: {self._id}\n\n".encode())
            if one.ends and one.seq >= self._channels[job_id].head:  # else it was tried again
                parts.append(self._end(job_id, one.ends))
        return parts

    def _end(self, job_id: str, state: str) -> bytes:
        self._ended.add(job_id)
        return frame("end", {"job_id": job_id, "state": state}, self._id)

    def leave(self) -> None:
        """Follow no longer."""
        for job_id in self._sent:
            channel = self._channels[job_id]
            channel.watchers.discard(self)
            if not channel.watchers:
                del self._channels[job_id]


class HintsWatcher(Watcher):
    """Is told which of the visible jobs changed, not how: lists fetch their rows again."""

    def __init__(self, user: User, now: Sequence[dict[str, Any]]) -> None:
        super().__init__(user)
        self._changed = {hint["id"]: hint for hint in now}

    async def due(self) -> bytes:
        changed, self._changed = self._changed, {}
        return b"".join(frame("job", hint) for hint in changed.values())

    def tell(self, hint: dict[str, Any]) -> None:
        """Note a change. The latest of a job is enough."""
        self._changed[hint["id"]] = hint
        self.news.set()
