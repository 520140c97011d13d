"""What the app does between requests: takes leases away that nobody renews, ends what is cached, rings while work waits.

Any number of processes may sweep: who is first changes a row, and the others match none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import select

from app.cached import end_cached
from app.claims import count_runnable
from app.leases import Lease
from app.models import Step, StepState
from app.reaper import Reaper
from app.services import Services
from app.settings import Settings

log = logging.getLogger(__name__)


def reaper(settings: Settings) -> Reaper:
    """A reaper as the settings want it."""
    return Reaper(settings.lease_s, settings.max_crashes, settings.max_attempts)


def expire_all(services: Services) -> int:
    """Take every lease back at once; how many. For the start of an embedded server, which knows that no worker lives."""
    watcher = reaper(services.settings)
    with services.database.write() as session:
        running = select(Step).where(Step.state == StepState.RUNNING).order_by(Step.job_id, Step.id)
        expired = [watcher.expire(session, row) for row in session.scalars(running).all()]
    return sum(lease is not None for lease in expired)


class Stopped(Exception):
    """The server ends."""


@dataclass(slots=True)
class Sweeper:
    """Threads that sweep every few seconds, and outlive every error. Reading what is cached may take long: it has its own."""

    services: Services
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        watching = partial(sweep, self.services, reaper(self.services.settings))
        ending = partial(end_cached, self.services, self._go_on, set())
        for name, act in (("sweeper", watching), ("cached", ending)):
            thread = threading.Thread(target=self._run, args=(act,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End, after the sweep that is under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def _run(self, act: Callable[[], object]) -> None:
        while not self._stopping.wait(self.services.settings.sweep_s):
            try:
                act()
            except Stopped:
                return
            except Exception:
                log.exception("sweep failed")


def sweep(services: Services, watcher: Reaper) -> list[Lease]:
    """Sweep once. Returns the leases taken away."""
    with services.database.write() as session:
        expired = watcher.sweep(session, time.monotonic())
    for lease in expired:
        log.warning("lease taken away", extra={"job_id": lease.job_id, "step_id": lease.step_id, "fence": lease.fence})
    with services.database.read() as session:
        waiting = count_runnable(session)
    if waiting:
        services.bell.ring()
    return expired
