"""What an `observe` step knows of the real images inside one teacher, as a file.

K classes, C channels of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.moments import Moments

FILE = "observed.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Statistics of real images inside one teacher: those that were asked for."""

    conv: Moments | None = None  # (sum of C,) each: what enters the convolutions
    classes: Moments | None = None  # (K, sum of C) each: of a mean image of each class, at the batch norms
    crops_top1_pct: float | None = None  # share of random crops that the teacher recognises

    def write(self, folder: Path) -> None:
        """Leave them in a folder."""
        tensors = {} if self.crops_top1_pct is None else {"crops_top1_pct": torch.tensor(self.crops_top1_pct)}
        for name, moments in (("conv", self.conv), ("classes", self.classes)):
            if moments is not None:
                tensors |= {
                    f"{name}.{part}": value.float() for part, value in zip(("mean", "var"), moments, strict=True)
                }
        save_file(tensors, folder / FILE)

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> Self:
        """What `write` left, on the device."""
        tensors = load_file(folder / FILE)

        def moments(name: str) -> Moments | None:
            if f"{name}.mean" not in tensors:
                return None
            return tensors[f"{name}.mean"].to(device), tensors[f"{name}.var"].to(device)

        crops: Tensor | None = tensors.get("crops_top1_pct")
        return cls(
            conv=moments("conv"), classes=moments("classes"), crops_top1_pct=None if crops is None else crops.item()
        )
