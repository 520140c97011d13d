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
MOST_RECORDS = 64  # of one step
log = logging.getLogger(__name__)

Update = Callable[..., tuple[Tensor, ...]]  # (kind, *inputs): waits for nothing; what it tells is read before the next
Changed = Callable[[], Sequence[Tensor]]  # every tensor that an update changes, once it was done for the first time


class Replays:
    """Does an update: the first time as it stands, the second time as it is recorded as a CUDA graph, then by replaying.

    A record is held against the update itself before it is used, and must come to the same numbers; where it does not,
    or cannot be made, all is done as it stands. So no number depends on whether an update is replayed.
    """

    failed = False  # in this process: what could not be recorded once is not tried again

    def __init__(self, device: torch.device, precision: Precision) -> None:
        """In fp16 an update changes its scaler too, and nothing is replayed."""
        self._device = device
        self.wanted = device.type == "cuda" and precision != "fp16" and is_wanted()
        self._records: dict[Hashable, _Record | None] = {}
        self._pool: Any = None  # of memory, for all records: one is replayed at a time

    def do(self, update: Update, changed: Changed, kind: Hashable, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One update, of tensors that stay where they are. kind: all that it depends on beside these and the inputs."""
        if not self.wanted or Replays.failed:
            return update(kind, *inputs)
        known = (kind, *((one.shape, one.dtype) for one in inputs))
        record = self._records.get(known)
        if record is not None:
            return record.replay(inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This instance was constructed with capturable")  # it is recorded next
            if known in self._records:
                return self._recorded(update, changed, known, kind, inputs)
            if len(self._records) < MOST_RECORDS:
                self._records[known] = None
            return update(kind, *inputs)

    def forget(self) -> None:
        """The tensors are others from here on: give the records' memory back."""
        if self._records:
            self._records, self._pool = {}, None
            if self.wanted:
                torch.cuda.empty_cache()

    def _recorded(
        self, update: Update, changed: Changed, known: Hashable, kind: Hashable, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """An update, and its record from now on; where that fails, an update as it stands."""
        before, why = self._copies(changed), "a replay came to other numbers"
        try:
            told = self._held_against_itself(update, changed, known, kind, inputs, before)
        except Exception as error:  # noqa: BLE001 - what cannot be recorded, for whatever reason, can still be done
            told, why = None, str(error).partition("\n")[0] or type(error).__name__
        if told is not None:
            return told
        log.warning("steps are told to the GPU one by one: %s", why)
        Replays.failed = True
        self._put_back(changed, before)
        self.forget()
        return update(kind, *inputs)

    def _held_against_itself(
        self,
        update: Update,
        changed: Changed,
        known: Hashable,
        kind: Hashable,
        inputs: Sequence[Tensor],
        before: _Copies,
    ) -> tuple[Tensor, ...] | None:
        """An update as it stands, put back, and as it is recorded: one after the other, so that memory is taken once.

        None where they differ.
        """
        told = tuple(one.clone() for one in update(kind, *inputs))
        after = self._copies(changed)
        self._put_back(changed, before)
        record = self._record(update, kind, inputs)
        replayed = record.replay(inputs)
        if not self._agree([*replayed, *changed()], [*told, *after.values], after.chance):
            return None
        self._records[known] = record
        return replayed

    def _record(self, update: Update, kind: Hashable, inputs: Sequence[Tensor]) -> _Record:
        """The graph of an update, which is not done meanwhile. What it took as it stood is given back first."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        held, graph = tuple(one.clone() for one in inputs), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            told = update(kind, *held)
        return _Record(graph, held, told)

    def _agree(self, found: Sequence[Tensor], expected: Sequence[Tensor], chance: Tensor) -> bool:
        """Whether a replay told, changed and drew what the update did."""
        pairs = zip(found, expected, strict=True)
        same = all(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True) for one, other in pairs)
        return same and torch.equal(torch.cuda.get_rng_state(self._device), chance)

    def _copies(self, changed: Changed) -> _Copies:
        return _Copies([one.clone() for one in changed()], torch.cuda.get_rng_state(self._device))

    def _put_back(self, changed: Changed, copies: _Copies) -> None:
        for one, value in zip(changed(), copies.values, strict=True):
            one.copy_(value)
        torch.cuda.set_rng_state(copies.chance, self._device)


class _Copies(NamedTuple):
    """What an update changes, at some moment."""

    values: list[Tensor]
    chance: Tensor  # of the device's random numbers


class _Record(NamedTuple):
    """A graph, what it reads its inputs from, and what it tells in."""

    graph: torch.cuda.CUDAGraph
    held: tuple[Tensor, ...]
    told: tuple[Tensor, ...]

    def replay(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        for held, one in zip(self.held, inputs, strict=True):
            held.copy_(one)
        self.graph.replay()
        return self.told


def is_wanted() -> bool:
    """Whether steps are to be replayed on GPUs."""
    switch, (major, minor, *_) = os.environ.get(SWITCH, ""), torch.__version__.split(".")
    return switch != "0" and (switch == "1" or (int(major), int(minor)) >= SOUND_SINCE)


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
