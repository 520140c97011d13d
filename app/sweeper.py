"""What the app does between requests: takes leases away that nobody renews, and rings while work waits.

Any number of processes may sweep: who is first changes a row, and the others match none.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from sqlalchemy import select

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


@dataclass(slots=True)
class Sweeper:
    """A thread that sweeps every few seconds, and outlives every error."""

    services: Services
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the sweep that is under way."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _run(self) -> None:
        watcher = reaper(self.services.settings)
        while not self._stopping.wait(self.services.settings.sweep_s):
            try:
                sweep(self.services, watcher)
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
