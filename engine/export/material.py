"""What every form of a download is made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from engine import png
from engine.datasets import Statistics
from engine.params import ExportParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """I images of each of K classes, and their soft labels."""

    images: Tensor  # (I, K, 3, S, S) uint8
    classes: tuple[str, ...]
    statistics: Statistics
    labels: Path  # folder of a whole relabel step
    params: ExportParams

    @property
    def count(self) -> int:
        """K * I."""
        return self.images.shape[0] * self.images.shape[1]

    def files(self) -> Iterator[tuple[int, int, bytes]]:
        """Class, ipc and PNG file of every image, class-major."""
        for label in range(len(self.classes)):
            for ipc, pixels in enumerate(self.images[:, label]):
                yield label, ipc, png.encode(pixels)
