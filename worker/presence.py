"""What a worker does beside its work, in a thread of its own: it shows that it is there, and looks for work by itself.

A bell may be lost, and Celery's consumer has been known to come back from a Redis restart deaf. Neither loses work here.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import claims
from app.claims import Holder
from app.machine import Process
from app.models import Worker, utc_now
from app.services import Services
from engine import __version__
from worker.execute import Carrier
from worker.gauge import Gauge

DEAF_S = 60.0  # idle beside work that could be claimed for so long: something is broken that only a new process repairs
log = logging.getLogger(__name__)


def end_deaf_process() -> None:
    """Leave at once, for a supervisor to start this worker anew."""
    os._exit(1)


@dataclass(slots=True, kw_only=True)
class Presence:
    """One worker's row, and its second pair of ears."""

    carrier: Carrier
    device_name: str
    give_up: Callable[[], None] = end_deaf_process
    deaf_s: float = DEAF_S
    _busy: bool = False
    _step_id: int | None = None
    _refuses: str | None = None
    _idle_beside_work_since: float | None = None
    _closed: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def services(self) -> Services:
        return self.carrier.services

    @property
    def holder(self) -> Holder:
        return self.carrier.holder

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="presence", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """The worker ends: take its row away."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self._quietly(self._leave)

    def busy(self, value: bool) -> None:
        """Whether the task runs."""
        self._busy = value
        self._idle_beside_work_since = None

    def on_step(self, step_id: int | None) -> None:
        """Which step it carries."""
        self._step_id = step_id

    def look(self, now: float) -> None:
        """Write the row; ring when there is work and nobody here does it; give up when that did not help for long."""
        self._note_refusal()
        self._quietly(partial(self._show, strangers=self._strangers()))
        if self._busy or not self._is_work_there():
            self._idle_beside_work_since = None
            return
        if self._idle_beside_work_since is None:
            self._idle_beside_work_since = now
        if now - self._idle_beside_work_since >= self.deaf_s:
            log.critical("deaf: there is work and no bell was heard", extra={"worker": self.holder.worker})
            self.give_up()
        self.services.bell.ring()

    def _run(self) -> None:
        while not self._closed.is_set():
            self.look(time.monotonic())
            self._closed.wait(self.services.settings.sweep_s)

    def _quietly(self, action: Callable[[Session], None]) -> None:
        try:
            with self.services.database.write() as session:
                action(session)
        except SQLAlchemyError as error:
            log.warning("database away", extra={"error": str(error)})

    def _is_work_there(self) -> bool:
        """For this worker: what does not fit into its memory, or waits while it is drained, is for others."""
        most = self.services.settings.max_running_per_user
        try:
            room = self.carrier.room()
            with self.services.database.read() as session:
                claimable = claims.is_claimable(session, self.holder, room=room, max_running_per_user=most)
            return claimable and self.carrier.refusal() is None and not self.carrier.strangers()
        except (SQLAlchemyError, OSError):
            return False

    def _note_refusal(self) -> None:
        """Ask whether it would begin a step, and say so in the log where that changed."""
        before, self._refuses = self._refuses, self.carrier.refusal()
        if self._refuses is not None and before is None:
            log.warning("takes no steps", extra={"worker": self.holder.worker, "reason": self._refuses})
        elif self._refuses is None and before is not None:
            log.info("takes steps again", extra={"worker": self.holder.worker})

    def _strangers(self) -> list[Process]:
        try:
            return self.carrier.strangers()
        except SQLAlchemyError:
            return []

    def _show(self, session: Session, strangers: Sequence[Process]) -> None:
        row = session.get(Worker, self.holder.worker)
        if row is None:
            row = Worker(id=self.holder.worker, started_at=utc_now())
            session.add(row)
        row.host, row.pid, row.version = self.holder.host, os.getpid(), __version__
        row.device, row.device_name = self.holder.device, self.device_name
        row.step_id, row.seen_at = self._step_id, utc_now()
        row.refuses = self._refuses
        row.strangers = [asdict(process) for process in strangers] if not self._busy else row.strangers
        if self.carrier.gauge is not None:
            self._show_memory(row, self.carrier.gauge)

    def _show_memory(self, row: Worker, gauge: Gauge) -> None:
        """What is free is told where it matters to who waits."""
        now, matters = gauge.sample(), self.services.settings.match_memory
        row.host_free_bytes = now.host.free_bytes if matters else None
        row.host_total_bytes = now.host.total_bytes
        if now.gpu is not None:
            row.device_free_bytes = now.gpu.free_bytes if matters else None
            row.device_total_bytes = now.gpu.total_bytes
        row.samples = list(gauge.samples)

    def _leave(self, session: Session) -> None:
        row = session.get(Worker, self.holder.worker)
        if row is not None and row.pid == os.getpid():
            session.delete(row)
