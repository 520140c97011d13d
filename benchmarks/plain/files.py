"""Images as files that a DataLoader opens one by one, and torchvision's transforms on each. S pixels a side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as TF

from engine.datasets import IMAGENET

MOST_WORKERS = 8
View = tuple[tuple[int, int, int, int], bool]  # crop as top, left, height, width, px; mirrored or not


class Files(Dataset[Any]):
    """Item -> whatever `look` makes of the opened image and the item's index."""

    def __init__(self, paths: Sequence[Path], look: Callable[[Image.Image, int], Any]) -> None:
        self._paths, self._look = paths, look

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self._paths[index]) as image:
            return self._look(image.convert("RGB"), index)


def seen(image: Image.Image, view: View, side: int) -> Tensor:
    """(3, S, S) normalised: cropped, mirrored."""
    box, flip = view
    cropped = TF.resized_crop(image, *box, [side, side], TF.InterpolationMode.BILINEAR)
    mirrored = TF.hflip(cropped) if flip else cropped
    normal: Tensor = TF.normalize(TF.to_tensor(mirrored), *IMAGENET)
    return normal


def cut_mixed(images: Tensor, partners: Tensor, box: Sequence[int]) -> Tensor:
    """In place, as FKD's code does it. box: top, left, bottom, right, px."""
    top, left, bottom, right = box
    images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return images


def loader(dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    """With a process a core, at most eight."""
    workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    return DataLoader(dataset, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)
