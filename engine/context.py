"""What a step is given: its parameters, the steps it needs, where to write, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from pydantic import BaseModel
from torch import Tensor

from engine.checkpoint import Checkpoint, Checkpoints
from engine.errors import Drained
from engine.events import Checkpointed, Event

Params = TypeVar("Params", bound=BaseModel)
Result = dict[str, Any]
Telling = Generator[Event, None, Result]  # yields events, returns the step's figures
State = tuple[Mapping[str, Tensor], Mapping[str, Any]]  # what a checkpoint holds: tensors and JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class Context(Generic[Params]):
    """The surroundings of one attempt of one step."""

    key: str  # of the step
    params: Params
    needs: Mapping[str, Path]  # role -> folder of a whole step
    out: Path
    checkpoints: Checkpoints
    device: torch.device
    stop: Callable[[], bool]  # True once the process is asked to end
    downloads: Path  # where fetched data sets are kept
    uploads: Path  # where uploaded ones are unpacked

    def folder(self, role: str) -> Path:
        """The whole step that plays a role, such as "data"."""
        return self.needs[role]

    def folders(self, role: str) -> tuple[Path, ...]:
        """The whole steps `role.0`, `role.1`, ... in their order."""
        count = sum(name.startswith(f"{role}.") for name in self.needs)
        return tuple(self.needs[f"{role}.{index}"] for index in range(count))

    def resumed(self) -> Checkpoint | None:
        """What an earlier attempt left."""
        return self.checkpoints.latest()

    def pause(self, done: int, state: Callable[[], State], *, rank: int | None = None) -> Iterator[Event]:
        """A place where the step may be interrupted: leaves a checkpoint when one is due, or the process is to end.

        Raises Drained in the second case. `state` is called only when there is something to write.
        rank: orders the checkpoints where the unit of `done` is too coarse to.
        """
        stopping = self.stop()
        if stopping or self.checkpoints.is_due():
            tensors, facts = state()
            self.checkpoints.save(rank=done if rank is None else rank, tensors=tensors, facts=facts)
            yield Checkpointed(done=done)
        if stopping:
            raise Drained(f"stopped after {done} units of work; a checkpoint is left")
