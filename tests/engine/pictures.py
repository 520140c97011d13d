"""Folders of real image files, as users bring them: each class a colour, in every mode that Pillow writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"ant": (200, 40, 30), "bee": (30, 60, 210), "cat": (40, 190, 60)}


def photo(colour: tuple[int, int, int], seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A noisy picture of one colour; size: width, height in px."""
    noise = np.random.default_rng(seed).normal(0, 20, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(colour) + noise).clip(0, 255).astype(np.uint8))


def write_class(folder: Path, colour: tuple[int, int, int], count: int) -> None:
    """`count` PNG files."""
    folder.mkdir(parents=True)
    for index in range(count):
        photo(colour, index).save(folder / f"{index:03d}.png")


def write_set(root: Path, *, train: int = 6, test: int = 3, classes: tuple[str, ...] = ("ant", "bee", "cat")) -> Path:
    """`root/train/<class>/*.png` and `root/test/<class>/*.png`."""
    for name in classes:
        write_class(root / "train" / name, COLOURS[name], train)
        if test:
            write_class(root / "test" / name, COLOURS[name], test)
    return root
