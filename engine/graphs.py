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

SWITCH = "FADRM_CUDA_GRAPHS"  # 0: nothing is replayed
MOST_RECORDS = 16  # of one step
log = logging.getLogger(__name__)
warnings.filterwarnings("ignore", "This instance was constructed with capturable")  # until it is recorded, it is not

Told = tuple[Tensor, ...]


class Replayed:
    """A step that is done again and again, on tensors that stay where they are.

    The first time it is done as it stands, the second time recorded as a CUDA graph, from then on replayed. A record is
    held against the step itself before it is used, and must come to the same bytes; where it does not, or cannot be made,
    all is done as it stands. So no number depends on whether a step is replayed.
    """

    def __init__(
        self,
        step: Callable[..., Told],
        state: Callable[[], Sequence[Tensor]],
        device: torch.device,
        precision: Precision,
    ) -> None:
        """step(kind, *inputs): may wait for nothing, and tells what is read before it is done again.

        state: every tensor that it changes, once it was done for the first time. In fp16 there are more, of its scaler,
        and nothing is replayed.
        """
        self._step, self._state, self._device = step, state, device
        self._replays = device.type == "cuda" and precision != "fp16" and os.environ.get(SWITCH) != "0"
        self._records: dict[Hashable, _Record | None] = {}
        self._pool: Any = None  # of memory, for all records: one is replayed at a time

    def __call__(self, kind: Hashable, *inputs: Tensor) -> Told:
        """Do the step. kind: all that it depends on beside its state and the inputs."""
        if not self._replays:
            return self._step(kind, *inputs)
        known = (kind, *((one.shape, one.dtype) for one in inputs))
        record = self._records.get(known)
        if record is not None:
            return record.replay(inputs)
        if known in self._records:
            return self._recorded(known, kind, inputs)
        if len(self._records) < MOST_RECORDS:
            self._records[known] = None
        return self._step(kind, *inputs)

    def _recorded(self, known: Hashable, kind: Hashable, inputs: Sequence[Tensor]) -> Told:
        """Do the step as it stands, make its record, and hold one against the other."""
        before = self._copies()
        try:
            record = self._record(kind, inputs)
        except RuntimeError as error:
            self._go_on_without(str(error).partition("\n")[0])
            return self._step(kind, *inputs)
        told = tuple(one.clone() for one in self._step(kind, *inputs))
        after = self._copies()
        self._put_back(before)
        replayed = record.replay(inputs)
        if all(map(torch.equal, [*replayed, *self._state()], [*told, *after.values])):
            self._records[known] = record
            return replayed
        self._go_on_without("a replay came to other numbers")
        self._put_back(after)
        return told

    def _record(self, kind: Hashable, inputs: Sequence[Tensor]) -> _Record:
        """The graph of the step, which is not done meanwhile. Raises RuntimeError."""
        torch.cuda.empty_cache()  # what the step took as it stood is for the record now
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        held, graph = tuple(one.clone() for one in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            told = self._step(kind, *held)
        return _Record(graph, held, told)

    def _go_on_without(self, why: str) -> None:
        log.warning("steps are told to the GPU one by one: %s", why)
        self._replays, self._records = False, {}

    def _copies(self) -> _Copies:
        return _Copies([one.clone() for one in self._state()], torch.cuda.get_rng_state(self._device))

    def _put_back(self, copies: _Copies) -> None:
        for one, value in zip(self._state(), copies.values, strict=True):
            one.copy_(value)
        torch.cuda.set_rng_state(copies.chance, self._device)


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
