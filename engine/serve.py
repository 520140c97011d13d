"""What a worker starts: steps asked for on stdin, events told on stdout, one JSON line each."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TextIO

import torch

from engine import device as devices
from engine.data import real_data
from engine.errors import Drained
from engine.events import Event
from engine.launch import EXIT_DRAINED, Request, usual_threads
from engine.plan import Step, StepKind
from engine.run import perform
from engine.store import Store

PR_SET_PDEATHSIG = 1
LEARNS = {StepKind.TEACH, StepKind.RECOVER, StepKind.EVALUATE, StepKind.CONTINUAL}  # by an optimiser


class Drain:
    """Whether this process was asked to end. While it only waits, it ends at once."""

    def __init__(self) -> None:
        self.waiting = False
        self._asked = False

    def listen(self) -> None:
        """Answer SIGTERM and SIGINT from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def is_set(self) -> bool:
        return self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self.waiting:
            raise SystemExit(EXIT_DRAINED)


def serve(*, parent: int | None = None, threads: int | None = None) -> int:
    """Answer requests until stdin ends; returns the exit code. What is not the user's mistake ends the process."""
    if parent is not None:
        end_with(parent)
    told, drain = private_stdout(), Drain()
    threads = threads or torch.get_num_threads()
    drain.listen()
    while not drain.is_set():
        drain.waiting = True
        line = sys.stdin.readline()
        drain.waiting = False
        if not line:
            return 0
        if not line.strip():
            continue
        try:
            tell(answer(Request.model_validate_json(line), drain, threads=threads), told)
        except Drained:
            break
    return EXIT_DRAINED


def _load() -> None:
    """The rest of torch, which it loads when the first optimiser of a process is made: a second that is no step's own."""
    torch.optim.SGD([torch.zeros(1)])


def answer(request: Request, drain: Drain, *, threads: int) -> Iterator[Event]:
    """The events of one step. Raises Drained, and SpecInvalid where the device is not there.

    The worker named the device, not the user: where it is gone the step has not failed, and another process may do it.
    """
    device = devices.pick(request.device)
    store = Store(request.store)
    devices.configure(device, threads=_threads(request.step, store, threads))
    if request.step.kind in LEARNS:
        _load()
    yield from perform(
        request.step,
        store,
        out=request.out,
        attempt=request.attempt,
        device=device,
        stop=drain.is_set,
        checkpoint_s=request.checkpoint_s,
    )


def _threads(step: Step, store: Store, threads: int) -> int:
    """As many as were given, or one where the images are tiny."""
    data = step.needs.get("data")
    return usual_threads(real_data(store.step(data)).resolution) or threads if data else threads


def tell(events: Iterable[Event], stream: TextIO) -> None:
    """One JSON line an event, at once."""
    for event in events:
        stream.write(event.model_dump_json() + "\n")
        stream.flush()


def private_stdout() -> TextIO:
    """Keep stdout for events: whatever else is printed in this process, by C libraries too, goes to stderr."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def end_with(parent: int) -> None:
    """Let Linux kill this process when its parent ends, however it ends. Raises SystemExit when it has already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(EXIT_DRAINED)
