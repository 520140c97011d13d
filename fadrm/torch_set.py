"""A distilled set for torch. The one module of this package that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from fadrm.sets import Distilled


class TorchSet(Dataset[tuple[Any, int]]):
    """(image, label) in class-major order; the image is (3, H, W) float32, normalised, unless a transform makes it otherwise."""

    def __init__(self, source: Distilled, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self.source, self.classes, self.targets = source, source.classes, source.labels
        self._transform = transform
        self._mean = torch.tensor(source.mean).view(3, 1, 1)
        self._std = torch.tensor(source.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.source.image(index)
        made = self._normalised(image) if self._transform is None else self._transform(image)
        return made, self.targets[index]

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        return (self[index] for index in range(len(self)))

    def _normalised(self, image: Image.Image) -> Tensor:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1)
        return (pixels.float() / 255 - self._mean) / self._std
