"""One attempt of one step: listens to the engine, renews the lease with what it tells, and says how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import leases
from app.jobs import Wish
from app.leases import Lease
from app.models import Job
from app.services import Services
from engine.events import Event, Finished, Log, Preview
from engine.launch import EXIT_DRAINED, Request
from worker.persist import UNWRITABLE, is_passing, patiently
from worker.previews import keep_previews, within
from worker.supervise import EngineProcess, Fuse

CANCEL_GRACE_S = 3.0  # nobody wants a checkpoint of a cancelled job
LOOK_S = 0.2  # how often a running step looks whether the worker is to stop
log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How an attempt ended."""

    FINISHED = "finished"  # the engine says that the step is whole
    FAILED = "failed"  # the engine says why it cannot be done
    CANCELLED = "cancelled"  # nobody wants it any more
    RELEASED = "released"  # stopped on our account: to go on from the checkpoint, here or elsewhere
    CRASHED = "crashed"  # the engine ended without a word


@dataclass(slots=True, kw_only=True)
class Attempt:
    """A lease, the engine that works under it, and the folder it writes in."""

    services: Services
    lease: Lease
    engine: EngineProcess
    device: str  # as the engine sees it
    out: Path
    stop: Callable[[], bool]
    _told_of_limit: bool = False

    def run(self) -> Outcome:
        """Let the engine do the step. Raises LeaseLost; the engine is then still to be ended."""
        settings = self.services.settings
        began = time.monotonic()
        self._note_process()
        grace_s = min(settings.grace_s, max(0.5, (settings.lease_s - settings.self_fence_s) / 2))
        with Fuse(self.engine, limit_s=settings.self_fence_s, grace_s=grace_s) as fuse:
            fuse.renew(began)
            self.engine.ask(self._request())
            outcome = self._accompany(fuse)
        log.info("attempt over", extra={"step": self.lease.step_id, "outcome": outcome})
        self._flush(certain=outcome == Outcome.FINISHED)
        return outcome

    def _request(self) -> Request:
        return Request(
            step=self.lease.step,
            store=self.services.store.root.absolute(),
            out=self.out.absolute(),
            attempt=self.lease.fence,
            device=self.device,
            checkpoint_s=self.services.settings.checkpoint_s,
        )

    def _note_process(self) -> None:
        pid, started = self.engine.pid, self.engine.started
        patiently(
            self.services.database,
            lambda session: leases.set_process(session, self.lease, pid=pid, pid_started=started),
            stop=self.stop,
        )

    def _accompany(self, fuse: Fuse) -> Outcome:
        settings = self.services.settings
        next_beat = time.monotonic()
        while True:
            if self.engine.wait(min(LOOK_S, next_beat - time.monotonic())):
                return self._ending(fuse)
            if self.stop():
                return self._interrupt(fuse)
            if self.engine.silence_s > settings.silence_s:
                log.warning("engine silent", extra={"step": self.lease.step_id, "limit_s": settings.silence_s})
                self.engine.end_for_silence()
                return Outcome.CRASHED
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + settings.heartbeat_s
                match self._beat(fuse):
                    case Wish.STOP:
                        self.engine.terminate(min(CANCEL_GRACE_S, settings.grace_s))
                        return Outcome.CANCELLED
                    case Wish.PAUSE:
                        return self._interrupt(fuse)

    def _interrupt(self, fuse: Fuse) -> Outcome:
        """Have the engine leave a checkpoint: the worker goes away, or the job is to pause."""
        log.info("step interrupted", extra={"step": self.lease.step_id})
        self.engine.terminate(self.services.settings.grace_s)
        return self._ending(fuse, asked=True)

    def _ending(self, fuse: Fuse, *, asked: bool = False) -> Outcome:
        """asked: the engine was told to end, and may have had to be killed for it."""
        if self.engine.verdict is not None:
            return Outcome.FINISHED if isinstance(self.engine.verdict, Finished) else Outcome.FAILED
        ours = asked or fuse.blown or self.stop() or self.engine.exit_code == EXIT_DRAINED
        return Outcome.RELEASED if ours else Outcome.CRASHED

    def _beat(self, fuse: Fuse) -> Wish:
        """Renew the lease with what the engine told. Returns what is wanted of the step. Raises LeaseLost."""
        began = time.monotonic()
        events, blobs = self._take()
        try:
            with self.services.database.write() as session:
                wanted = self._record(session, events, blobs)
        except UNWRITABLE as error:
            self._unwritten(events, error)
            return Wish.WORK
        fuse.renew(began)
        return wanted

    def _flush(self, *, certain: bool) -> None:
        """Write down what is left, before the end is. certain: also make sure that the lease is still held."""
        events, blobs = self._take()
        if not events and not certain:
            return
        try:
            patiently(
                self.services.database,
                lambda session: self._record(session, events, blobs),
                stop=self.stop,
            )
        except UNWRITABLE:
            log.exception("events of a step could not be stored", extra={"step": self.lease.step_id})

    def _record(self, session: Session, events: list[Event], blobs: dict[str, str]) -> Wish:
        most = self.services.settings.max_log_bytes_per_job
        return leases.record(session, self.lease, events, blobs, max_log_bytes=most)

    def _take(self) -> tuple[list[Event], dict[str, str]]:
        events = self.engine.pending.take()
        if any(isinstance(event, Preview) for event in events):
            events = self._allowed(events)
        return keep_previews(events, self.out, self.services.store)

    def _allowed(self, events: list[Event]) -> list[Event]:
        """The events without the previews that are past the job's limit, which its log says once an attempt.

        Asked before a picture goes into the store. Where the database is away, the limit is not known, and they stay.
        """
        most = self.services.settings.max_previews_per_job
        try:
            with self.services.database.read() as session:
                had = session.get_one(Job, self.lease.job_id).previews
        except SQLAlchemyError:
            return events
        kept = within(events, most - had)
        if len(kept) < len(events) and not self._told_of_limit:
            self._told_of_limit = True
            message = (
                f"No more contact sheets are kept of this job: the limit is {most:,} (FADRM_MAX_PREVIEWS_PER_JOB)."
            )
            kept.append(Log(message=message, level="warning"))
        return kept

    def _unwritten(self, events: list[Event], error: Exception) -> None:
        """A heartbeat failed: its events wait for the next one, unless it is them that the database cannot take."""
        if is_passing(error):
            log.warning("heartbeat failed", extra={"step": self.lease.step_id, "error": str(error)})
            self.engine.pending.give_back(events)
            return
        log.error("events cannot be stored", exc_info=error, extra={"step": self.lease.step_id})
        self.engine.pending.add(Log(message=f"{len(events)} events could not be stored", level="error"))
