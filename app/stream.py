"""The hub of live events: one look at the database for all who watch, a few times a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.db import Database
from app.errors import TooMany, Unavailable
from app.frames import PING, PING_EVENT, RETRY, hint_of, read_changes, read_news
from app.models import TERMINAL_JOB_STATES, User, utc_now
from app.settings import DEFAULTS
from app.visibility import read_teams, sees
from app.watchers import Channel, Following, HintsWatcher, JobsWatcher, Watcher

log = logging.getLogger(__name__)
POLL_S = 0.3
PING_S = 15.0  # proxies close what is silent
CHECK_S = 60.0  # how often a long stream asks whether its token is still good


class Hub:
    """All watchers of this process, and the one task that looks for news."""

    def __init__(
        self,
        database: Database,
        *,
        most: int = DEFAULTS.max_streams,
        most_per_user: int = DEFAULTS.max_streams_per_user,
        poll_s: float = POLL_S,
        ping_s: float = PING_S,
        check_s: float = CHECK_S,
    ) -> None:
        self.database = database
        self.most, self.most_per_user = most, most_per_user
        self.poll_s, self.ping_s, self.check_s = poll_s, ping_s, check_s
        self._channels: dict[str, Channel] = {}
        self._watchers: set[Watcher] = set()
        self.on_lag: Callable[[float], object] | None = None  # told how old news are that were found, s
        self._known: dict[str, tuple[str, int]] = {}  # unfinished jobs -> state, version
        self._newest = ""
        self._somebody = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look. Call in the event loop."""
        self._task = asyncio.create_task(self._run(), name="hub")

    def close(self) -> None:
        """End every stream. Browsers come again by themselves."""
        self._closed = True
        for watcher in self._watchers:
            watcher.news.set()

    async def stop(self) -> None:
        """End every stream, and look no more."""
        self.close()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def follow(self, user: User, jobs: Sequence[Following]) -> JobsWatcher:
        """Watch some jobs. Raises TooMany or Unavailable."""
        self._admit(user)
        watcher = JobsWatcher(user, self.database, self._channels, jobs)
        self._watchers.add(watcher)
        self._somebody.set()
        return watcher

    def hint(self, user: User, now: Sequence[dict[str, Any]]) -> HintsWatcher:
        """Watch all jobs that the user may see. now: those that a list may show wrongly. Raises TooMany or Unavailable."""
        self._admit(user)
        watcher = HintsWatcher(user, now)
        self._watchers.add(watcher)
        self._somebody.set()
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Somebody went away."""
        self._watchers.discard(watcher)
        if isinstance(watcher, JobsWatcher):
            watcher.leave()

    def _admit(self, user: User) -> None:
        if self._closed:
            raise Unavailable("The server is going down.", headers={"Retry-After": "5"})
        streams = Counter(watcher.user.id for watcher in self._watchers)
        if streams[user.id] >= self.most_per_user:
            detail = f"You have {self.most_per_user} streams open."
            raise TooMany(detail, hint="Close some tabs.", headers={"Retry-After": "10"})
        if streams.total() >= self.most:
            raise Unavailable("Too many streams are open.", headers={"Retry-After": "10"})

    async def stream(
        self, watcher: Watcher, is_allowed: Callable[[], bool], ping: bytes = PING
    ) -> AsyncIterator[bytes]:
        """What one watcher is sent. is_allowed: asked once a minute, in a thread. ping: sent where there is no news."""
        yield RETRY
        checked = time.monotonic()
        while not self._closed:
            if not await _comes(watcher.news, self.ping_s):
                yield ping
            watcher.news.clear()
            chunk = await watcher.due()
            if chunk:
                yield chunk
            if watcher.is_done:
                return
            if time.monotonic() - checked > self.check_s:
                checked = time.monotonic()
                if not await asyncio.to_thread(is_allowed):
                    return

    async def _run(self) -> None:
        while True:
            await self._somebody.wait()
            try:
                await self._look()
            except Exception:
                log.exception("hub cannot look")
            if not self._watchers:
                self._somebody.clear()
                self._known, self._newest = {}, ""
            await asyncio.sleep(self.poll_s)

    async def _look(self) -> None:
        heads = {job_id: channel.head for job_id, channel in self._channels.items()}
        news = await asyncio.to_thread(read_news, self.database, heads) if heads else {}
        for job_id, (last_seq, frames) in news.items():
            channel = self._channels.get(job_id)
            if channel is not None and channel.head == heads[job_id]:  # else it is another one: somebody came anew
                channel.move(last_seq, frames)
                if frames and self.on_lag is not None:
                    self.on_lag((utc_now() - frames[-1].at).total_seconds())
        hinted = [watcher for watcher in self._watchers if isinstance(watcher, HintsWatcher)]
        if hinted:
            rows = await asyncio.to_thread(read_changes, self.database, list(self._known), self._newest)
            self._tell(hinted, rows, await asyncio.to_thread(read_teams, self.database))

    def _tell(self, hinted: Sequence[HintsWatcher], rows: Sequence[Any], mates: Mapping[str, set[str]]) -> None:
        for row in rows:
            if self._known.get(row.id) != (row.state, row.last_seq):
                for watcher in hinted:
                    if sees(watcher.user, mates.get(watcher.user.id, ()), row.owner_id, row.visibility):
                        watcher.tell(hint_of(row))
            self._newest = max(self._newest, row.id)
        self._known = {row.id: (row.state, row.last_seq) for row in rows if row.state not in TERMINAL_JOB_STATES}


async def _comes(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True


class EventStream(StreamingResponse):
    """The stream of one watcher, who is forgotten when it ends, however it ends. pings: as events, not as comments."""

    def __init__(self, hub: Hub, watcher: Watcher, is_allowed: Callable[[], bool], *, pings: bool = False) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        sent = hub.stream(watcher, is_allowed, PING_EVENT if pings else PING)
        super().__init__(sent, headers=headers, media_type="text/event-stream")
        self._hub, self._watcher = hub, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._hub.leave(self._watcher)
