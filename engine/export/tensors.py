"""Torch tensors: the pixels as they are, or normalised and in the class order that DD-Ranking reckons with.

They hold tensors and plain values alone. N = K * I images, class-major.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from engine import arrays, pixels
from engine.datasets import Statistics
from engine.export.ddranking import counterpart
from engine.export.material import Material


def uint8(material: Material, path: Path) -> Iterator[int]:
    """images (N, 3, S, S) uint8, labels (N,) int64, the classes' names, and the mean and std to normalise with."""
    order = tuple(range(len(material.classes)))
    yield from _saved(material, path, torch.uint8, order, material.statistics, {})


def normalised(material: Material, path: Path) -> Iterator[int]:
    """images (N, 3, S, S) float32 as DD-Ranking's `compute_metrics(image_tensor=...)` takes them."""
    found = counterpart(material.classes, material.statistics)
    facts = {"set": found.name or "none of DD-Ranking's", "soft_labels": "M: DD-Ranking makes them itself, each epoch"}
    yield from _saved(material, path, torch.float32, found.order, found.statistics, facts)


def _saved(
    material: Material,
    path: Path,
    dtype: torch.dtype,
    order: tuple[int, ...],
    statistics: Statistics,
    facts: dict[str, str],
) -> Iterator[int]:
    """Gather the classes in an order, on the disk, and save them; floats are normalised."""
    ipcs, side = len(material.images), material.images.shape[-1]
    gathered = path.with_suffix(".npy")
    images = arrays.create(gathered, (material.count, 3, side, side), dtype)
    for label, source in enumerate(order):
        own = material.images[:, source]
        images[label * ipcs : (label + 1) * ipcs] = (
            pixels.normalised(own, statistics) if dtype.is_floating_point else own
        )
        yield label * ipcs
    said = {
        "labels": torch.arange(len(order)).repeat_interleave(ipcs),
        "classes": [material.classes[source] for source in order],
        "mean": statistics[0],
        "std": statistics[1],
    }
    torch.save({"images": images, **said, **facts}, path)
    gathered.unlink()
    yield material.count
