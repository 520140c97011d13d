"""How much memory this worker has for a step, and who else is on its GPU."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from app import machine
from app.claims import Room
from app.machine import Device, Memory, Process

FRESH_S = 2.0  # asking the driver takes a tenth of a second, or some
MOST_SAMPLES = 120  # of the workers page: ten minutes
CONTEXT_BYTES = 2**29  # that CUDA itself takes on a GPU, for every process


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a worker's memory stands at one moment."""

    host: Memory
    gpu: Device | None = None  # None: it computes on the CPU, or the driver tells nothing of its GPU
    processes: tuple[Process, ...] = ()  # on that GPU


@dataclass(slots=True, kw_only=True)
class Gauge:
    """Of one worker. Everything that it asks is given, for tests without a GPU.

    shown: CUDA_VISIBLE_DEVICES of its engine, an index or a UUID; empty for the CPU.
    """

    shown: str
    memory: Callable[[], Memory] = machine.memory
    gpus: Callable[[], list[Device]] = machine.gpus
    processes: Callable[[], Mapping[str, list[Process]]] = machine.processes
    clock: Callable[[], float] = time.monotonic
    samples: deque[list[float]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    _last: Reading | None = None
    _was_seen: bool = False
    _read_at: float = 0.0

    def read(self) -> Reading:
        """As it is now, or was a moment ago."""
        if self._last is None or self.clock() - self._read_at > FRESH_S:
            gpu = self._gpu()
            processes = tuple(self.processes().get(gpu.uuid, ())) if gpu else ()
            self._last, self._read_at = Reading(host=self.memory(), gpu=gpu, processes=processes), self.clock()
            self._was_seen = self._was_seen or gpu is not None
        return self._last

    def sample(self) -> Reading:
        """Read, and remember for the workers page: shares from 0 to 1 of the device at work, and of its memory in use."""
        now = self.read()
        if now.gpu and now.gpu.free_bytes is not None and now.gpu.total_bytes:
            used, busy = 1 - now.gpu.free_bytes / now.gpu.total_bytes, (now.gpu.busy_pct or 0) / 100
            self.samples.append([round(busy, 3), round(used, 3)])
        return now

    def is_gone(self) -> bool:
        """Whether the driver told of this GPU once and does not now. One of which it never told may be there: in a
        container, or as a part of a GPU."""
        return self.read().gpu is None and self._was_seen

    def room(self, engine_pid: int | None) -> Room | None:
        """What a step could take now; None when that is not known. engine_pid: what this engine holds is free for it."""
        now = self.read()
        host = now.host.free_bytes + (machine.resident_bytes(engine_pid) if engine_pid else 0)
        if not self.shown:
            return Room(host, None)
        if now.gpu is None or now.gpu.free_bytes is None:
            return None
        own = next((one.used_bytes or 0 for one in now.processes if one.pid == engine_pid), 0)
        return Room(host, now.gpu.free_bytes + own - (0 if own else CONTEXT_BYTES))

    def strangers(self, own: Collection[int]) -> list[Process]:
        """Who computes on this GPU beside the processes of this service."""
        return [process for process in self.read().processes if process.pid not in own]

    def _gpu(self) -> Device | None:
        """A GPU that was there is asked for twice: one answer that came too late, or was an error, does not make it gone.
        At once, for whoever asks after a crash must not begin the step again where it would find no GPU."""
        if not self.shown:
            return None
        was_there = self._last is not None and self._last.gpu is not None
        return self._told_gpu() or (self._told_gpu() if was_there else None)

    def _told_gpu(self) -> Device | None:
        return next((gpu for gpu in self.gpus() if self.shown in (gpu.id.removeprefix("cuda:"), gpu.uuid)), None)
