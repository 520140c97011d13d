"""The doorbell: tells the workers that there may be work. Losing a ring loses nothing, it only costs seconds."""

from __future__ import annotations

import logging
import threading

from kombu.exceptions import OperationalError

from app.queue import QUEUE, WORK, celery_app

log = logging.getLogger(__name__)
RING_EXPIRES_S = 60


class Bell:
    """Rings from a thread of its own: a request never waits for Redis, which may be down or frozen."""

    def __init__(self, redis_url: str) -> None:
        self._celery = celery_app(redis_url) if redis_url else None
        self._rung = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def ring(self) -> None:
        """Say that there may be work. Returns at once."""
        if self._celery is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
            self._thread.start()
        self._rung.set()

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._rung.set()

    def _run(self) -> None:
        assert self._celery is not None
        while True:
            self._rung.wait()
            self._rung.clear()
            if self._closed:
                return
            try:
                self._celery.send_task(WORK, queue=QUEUE, expires=RING_EXPIRES_S, retry=False)
            except (OperationalError, OSError) as error:
                log.warning("bell not heard", extra={"error": repr(error)})
