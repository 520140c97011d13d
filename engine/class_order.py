"""Whether a reader of a download finds in it what the labels say: classes in their order, and images that teachers know.

A mistake here would not show before somebody trains on the download, and scores at chance.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from engine import png
from engine.errors import PackageInvalid

TOLERATED = 10  # points that teachers may lose between labelling and packing: another device computes otherwise

Judge = Callable[[Tensor, Tensor], float]  # images (n, 3, S, S) uint8 and labels (n,) -> share that is recognised, %


def classes_of(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The folders of a zip's images and what is in each, (n, 3, S, S) uint8, in the order that ImageFolder gives them."""
    with zipfile.ZipFile(path) as archive:
        folders: dict[str, list[str]] = {}
        for name in sorted(name for name in archive.namelist() if name.startswith("images/")):
            folders.setdefault(name.split("/")[1], []).append(name)
        for folder, names in folders.items():
            yield folder, torch.stack([png.decode(archive.read(name)) for name in names])


def recognised_pct(path: Path, expected: Sequence[str], judge: Judge) -> Iterator[float]:
    """What share of each class of a zip is recognised, %, class after class. Classes hold equally many images.

    expected: the folders in the order of the labels. Raises PackageInvalid when a reader finds another order.
    """
    label = -1
    for label, (folder, images) in enumerate(classes_of(path)):
        if label >= len(expected) or folder != expected[label]:
            raise _misplaced(label, folder, expected)
        yield judge(images, torch.full((len(images),), label))
    if label + 1 != len(expected):
        raise _misplaced(label + 1, "nothing", expected)


def compare(recognised: Sequence[float], told_pct: float) -> float:
    """The mean of the classes, %. Raises PackageInvalid where it is far below what labelling told of the same images."""
    mean = fmean(recognised)
    if told_pct - mean > max(TOLERATED, told_pct / 2):
        raise PackageInvalid(
            f"The teachers recognise {mean:.1f} % of the packaged images, and {told_pct:.1f} % while they labelled them: "
            "images and labels do not belong together."
        )
    return mean


def foreign(network: str, real_pct: float, recognised: float, classes: int) -> None:
    """Raises PackageInvalid for a teacher, trained elsewhere, that knows the packaged images but not the real ones."""
    chance = 100 / classes
    if real_pct <= chance and recognised >= (100 + chance) / 2:
        raise PackageInvalid(
            f"Teacher {network}, trained elsewhere, recognises {recognised:.1f} % of the packaged images but only "
            f"{real_pct:.1f} % of the real test images: its classes are in another order than those of the data set.",
            hint="Name the classes of the data set in the order of the weights, or train the teacher here.",
            pointer="/teachers",
        )


def _misplaced(label: int, folder: str, expected: Sequence[str]) -> PackageInvalid:
    wanted = expected[label] if label < len(expected) else "nothing"
    return PackageInvalid(
        f"A reader of the download finds {folder} as class {label}, which the labels call {wanted}: "
        "folders do not sort in the order of the labels."
    )
