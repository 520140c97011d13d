"""What one side is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One workload on one device."""

    workload: Workload
    root: Path  # what both sides work on lies here: see `benchmarks.planted`
    device: torch.device
    checking: bool = False  # all of it, in fp32, with the engine's own decisions, and telling the numbers
    numbers: dict[str, list[float]] = field(default_factory=dict)

    def settle(self) -> None:
        """Wait until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def tell(self, name: str, *values: float) -> None:
        """Numbers that both sides should have the same."""
        self.numbers.setdefault(name, []).extend(values)
