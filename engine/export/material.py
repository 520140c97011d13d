"""What every form of a download is made from."""

from __future__ import annotations

import re
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


def class_folder(label: int, name: str) -> str:
    """A folder name that sorts by class index, on every file system: `00003_tench`."""
    return f"{label:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:40]}"


def image_file(label: int, name: str, ipc: int) -> str:
    """Where an image lies in a download."""
    return f"images/{class_folder(label, name)}/{ipc:05d}.png"
