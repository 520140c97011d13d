"""A step on a GPU that is recorded once and replayed: telling a GPU of hundreds of small kernels takes longer than they do."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from engine.precision import Precision

SWITCH = "FADRM_CUDA_GRAPHS"  # 0: nothing is replayed; 1: with an older torch too
SOUND_SINCE = (
    2,
    13,
)  # of torch: before, memory is lost, or the process, where a recording fails (pytorch #180395, #190348)
MOST_RECORDS = 16  # of one step
log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", "This instance was constructed with capturable")  # until it is recorded, it is not

Told = tuple[Tensor, ...]


class Step(NamedTuple):
    """What is done again and again, on tensors that stay where they are."""

    do: Callable[..., Told]  # (kind, *inputs): waits for nothing, and tells what is read before it is done again
    changed: Callable[[], Sequence[Tensor]]  # every tensor that it changes, once it was done for the first time


class Replays:
    """Does a step: the first time as it stands, the second time as it is recorded as a CUDA graph, then by replaying it.

    A record is held against the step itself before it is used, and must come to the same bytes; where it does not, or
    cannot be made, all is done as it stands. So no number depends on whether a step is replayed.
    """

    failed = False  # in this process: what could not be recorded once is not tried again

    def __init__(self, device: torch.device, precision: Precision) -> None:
        """In fp16 a step changes its scaler too, and nothing is replayed."""
        self._device = device
        self._wanted = device.type == "cuda" and precision != "fp16" and is_wanted()
        self._records: dict[Hashable, _Record | None] = {}
        self._pool: Any = None  # of memory, for all records: one is replayed at a time

    def do(self, step: Step, kind: Hashable, *inputs: Tensor) -> Told:
        """Do the step, which is always the same. kind: all that it depends on beside its tensors and the inputs."""
        if not self._wanted or Replays.failed:
            return step.do(kind, *inputs)
        known = (kind, *((one.shape, one.dtype) for one in inputs))
        record = self._records.get(known)
        if record is not None:
            return record.replay(inputs)
        if known in self._records:
            return self._recorded(step, known, kind, inputs)
        if len(self._records) < MOST_RECORDS:
            self._records[known] = None
        return step.do(kind, *inputs)

    def _recorded(self, step: Step, known: Hashable, kind: Hashable, inputs: Sequence[Tensor]) -> Told:
        """Do the step as it stands, put all back, and do it as it is recorded: one after another, to take memory once."""
        before = self._copies(step)
        told = tuple(one.clone() for one in step.do(kind, *inputs))
        after = self._copies(step)
        self._put_back(step, before)
        try:
            record = self._record(step, kind, inputs)
            replayed = record.replay(inputs)
            if all(map(torch.equal, [*replayed, *step.changed()], [*told, *after.values])):
                self._records[known] = record
                return replayed
            why = "a replay came to other numbers"
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            why = str(error).partition("\n")[0]
        log.warning("steps are told to the GPU one by one: %s", why)
        self._records, self._pool, Replays.failed = {}, None, True
        self._put_back(step, after)
        return told

    def _record(self, step: Step, kind: Hashable, inputs: Sequence[Tensor]) -> _Record:
        """The graph of the step, which is not done meanwhile. Raises RuntimeError."""
        torch.cuda.empty_cache()  # what the step took as it stood is for the record now
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        held, graph = tuple(one.clone() for one in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            told = step.do(kind, *held)
        return _Record(graph, held, told)

    def _copies(self, step: Step) -> _Copies:
        return _Copies([one.clone() for one in step.changed()], torch.cuda.get_rng_state(self._device))

    def _put_back(self, step: Step, copies: _Copies) -> None:
        for one, value in zip(step.changed(), copies.values, strict=True):
            one.copy_(value)
        torch.cuda.set_rng_state(copies.chance, self._device)


class _Copies(NamedTuple):
    """What a step changes, at some moment."""

    values: list[Tensor]
    chance: Tensor  # of the device's random numbers


class _Record(NamedTuple):
    """A graph, what it reads its inputs from, and what it tells in."""

    graph: torch.cuda.CUDAGraph
    held: Told
    told: Told

    def replay(self, inputs: Sequence[Tensor]) -> Told:
        for held, one in zip(self.held, inputs, strict=True):
            held.copy_(one)
        self.graph.replay()
        return self.told


def is_wanted() -> bool:
    """Whether steps are to be replayed on GPUs."""
    switch = os.environ.get(SWITCH, "")
    return switch != "0" and (switch == "1" or version() >= SOUND_SINCE)


def version() -> tuple[int, int]:
    """Torch's, without its last parts."""
    major, minor, *_ = torch.__version__.split(".")
    return int(major), int(minor)


def rate(lr: float, device: torch.device) -> float | Tensor:
    """A learning rate for an optimiser whose steps may be replayed: on a GPU in its memory, as a graph keeps numbers."""
    return torch.tensor(lr, device=device) if device.type == "cuda" else lr


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Change the learning rate of all that is optimised."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
