"""One worker of the service: its name, its device, its task, and what it does when Celery starts and stops it."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, signals

from app import logs, machine, services
from app.claims import Holder
from app.queue import WORK, celery_app
from app.settings import Settings
from worker.engines import Engines
from worker.execute import Carrier
from worker.gauge import Gauge
from worker.presence import Presence

MOST_WORKERS_A_DEVICE = 256
log = logging.getLogger(__name__)


class Member:
    """Built when the module that Celery loads is imported; begins to do something when Celery says so."""

    def __init__(self, settings: Settings, command: Sequence[str] | None = None) -> None:
        self.settings = settings
        self.app = celery_app(settings.redis_url)
        self.app.conf.update(worker_concurrency=1)
        self.app.task(name=WORK)(self.work)
        self._command = command
        self._stopping = False
        self._carrier: Carrier | None = None
        self._presence: Presence | None = None
        self._name: socket.socket | None = None
        for signal, handler in self._handlers():
            signal.connect(handler, weak=False)

    def work(self) -> None:
        """The one task: carry steps until there is none to claim."""
        assert self._carrier is not None and self._presence is not None
        self._presence.busy(True)
        try:
            self._carrier.drain()
        finally:
            self._presence.busy(False)

    def _handlers(self) -> list[tuple[Any, Callable[..., None]]]:
        return [
            (signals.setup_logging, self._on_logging),
            (signals.celeryd_init, self._on_init),
            (signals.worker_ready, self._on_ready),
            (signals.worker_shutting_down, self._on_stop),
            (signals.worker_shutdown, self._on_end),
        ]

    def _on_logging(self, **_: Any) -> None:
        logs.configure()

    def _on_init(self, options: dict[str, Any], **_: Any) -> None:
        pool = str(options.get("pool"))
        if "solo" not in pool:
            raise SystemExit(f"This worker runs with -P solo, not {pool}: its engine is a process of its own already.")
        holder, self._name = enlist(self.settings)
        built = services.build(self.settings)
        engines = Engines(
            device=self.settings.device, threads=self.settings.threads or machine.cores(), command=self._command
        )
        device = machine.device(self.settings.device)
        self._carrier = Carrier(
            services=built,
            holder=holder,
            engines=engines,
            gauge=Gauge(shown=engines.shown_device),
            stop=self._is_stopping,
        )
        self._presence = Presence(carrier=self._carrier, device_name=device.name)
        self._carrier.on_step = self._presence.on_step

    def _is_stopping(self) -> bool:
        return self._stopping

    def _on_ready(self, **_: Any) -> None:
        assert self._carrier is not None and self._presence is not None
        self._presence.start()
        self._carrier.services.bell.ring()  # also after Redis came back: what rang meanwhile was not heard

    def _on_stop(self, **_: Any) -> None:
        self._stopping = True  # in a signal handler: nothing here may wait for a lock

    def _on_end(self, **_: Any) -> None:
        if self._presence is not None:
            self._presence.close()
        if self._carrier is not None:
            self._carrier.services.close()


def enlist(settings: Settings) -> tuple[Holder, socket.socket]:
    """A name that no other living worker of this database has: host:device:slot, and the socket that holds it.

    The name is a socket of Linux's abstract kind, which is given back when the process ends, however it ends.
    """
    host = machine.hostname()
    for slot in range(MOST_WORKERS_A_DEVICE):
        worker = f"{host}:{settings.device}:{slot}"
        digest = hashlib.sha256(f"{settings.database}|{worker}".encode()).hexdigest()
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(f"\0fadrm-worker-{digest}")
        except OSError:
            held.close()
            continue
        return Holder(worker=worker, host=host, device=settings.device), held
    raise SystemExit(f"There are {MOST_WORKERS_A_DEVICE} workers on {settings.device} of {host} already.")


def enrol(settings: Settings, command: Sequence[str] | None = None) -> Celery:
    """The Celery application of a worker. command: of the engine, for tests."""
    return Member(settings, command).app
