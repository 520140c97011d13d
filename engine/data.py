"""What steps hand each other, as tensors: prepared data sets, teachers, images.

What was read of a folder is kept from step to step of one process, until `forget_all_but` is told that it is not needed.

N images, K classes, I images per class (ipc), H W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from engine import arrays
from engine import device as devices
from engine.datasets import Statistics, held_back_count
from engine.models import build, frozen
from engine.plan.memory import RESIDENT_BYTES
from engine.precision import Precision, cast, prepared, sent
from engine.randomness import generator

RESIDENT_SHARE = 0.3  # of a GPU's free memory that an array may take
Kept = TypeVar("Kept")
_kept: dict[tuple[Path, object], Any] = {}  # folder, and what of it -> what was read


def forget_all_but(folders: Iterable[Path]) -> None:
    """Keep what was read of these folders, and nothing else: it may lie in the little memory of a GPU."""
    needed = set(folders)
    for key in [key for key in _kept if key[0] not in needed]:
        del _kept[key]


def _once(folder: Path, what: object, read: Callable[[], Kept]) -> Kept:
    """What is kept of a folder, or is from now on."""
    if (folder, what) not in _kept:
        _kept[folder, what] = read()
    found: Kept = _kept[folder, what]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RealData:
    """A prepared data set: pixels on the disk, read where they are touched."""

    train: Tensor  # (N, 3, H, W) uint8
    train_labels: Tensor  # (N,) int64
    test: Tensor
    test_labels: Tensor
    title: str
    classes: tuple[str, ...]
    statistics: Statistics
    resolution: int  # px
    train_files: tuple[str, ...] | None  # of a folder: where each training image came from

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def of_class(self, label: int) -> Tensor:
        """(n,) int64: the indices of a class's training images, ascending."""
        return (self.train_labels == label).nonzero()[:, 0]

    def held_back(self, label: int, per_class: int) -> Tensor:
        """(v,) int64: the training images of a class that no image is made from, ascending: they choose the best epoch.

        The same for every job of these images that asks for as many.
        """
        found = self.of_class(label)
        chance = generator(0, "held back", label)
        count = held_back_count(len(found), per_class)
        return found[torch.randperm(len(found), generator=chance)[:count]].sort().values

    def usable(self, label: int, per_class: int) -> Tensor:
        """(n - v,) int64: the training images of a class that images are made from, ascending."""
        found = self.of_class(label)
        return found[~torch.isin(found, self.held_back(label, per_class))]


def real_data(folder: Path) -> RealData:
    """What a whole `prepare` step left."""
    return _once(folder, "data", partial(_read_data, folder))


def _read_data(folder: Path) -> RealData:
    facts = json.loads((folder / "data.json").read_bytes())
    files = facts["train_files"]
    return RealData(
        train=arrays.read(folder / "train.npy"),
        train_labels=arrays.read(folder / "train_labels.npy"),
        test=arrays.read(folder / "test.npy"),
        test_labels=arrays.read(folder / "test_labels.npy"),
        title=facts["title"],
        classes=tuple(facts["classes"]),
        statistics=statistics_of(facts),
        resolution=facts["resolution"],
        train_files=None if files is None else tuple(files),
    )


def statistics_of(facts: dict[str, Any]) -> Statistics:
    """Mean and standard deviation per channel out of data.json."""
    mean, std = (tuple(float(value) for value in facts[name]) for name in ("mean", "std"))
    assert len(mean) == 3 and len(std) == 3
    return mean, std


def resident(folder: Path, name: str, device: torch.device) -> Tensor:
    """An array of a whole step, on the device where it fits there, else read from the disk as it is touched."""
    found: Tensor | None = _kept.get((folder, (name, device)))
    if found is None:
        array = arrays.read(folder / f"{name}.npy")
        found = fitted(array, device)
        if found is not array:  # what does not fit now may when it is asked for again
            _kept[folder, (name, device)] = found
    return found


def fitted(array: Tensor, device: torch.device) -> Tensor:
    """A copy on the device where there is room for it, else the array itself."""
    return array.to(device, copy=True) if array.nbytes <= _room(device) else array


def batch_of(images: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """(B, ...) rows of an array on the device, wherever the array lies."""
    return sent(images[sent(indices, images.device)], device)


def teacher(folder: Path, device: torch.device, precision: Precision = "fp32") -> nn.Module:
    """The network of a whole `teach` step, frozen and in eval mode, for passes in that precision.

    Shared by all who ask: leave its state as it is.
    """
    return _once(folder, ("teacher", device, precision), partial(_read_teacher, folder, device, precision))


def _read_teacher(folder: Path, device: torch.device, precision: Precision) -> nn.Module:
    facts = teacher_facts(folder)
    model = build(facts["network"], num_classes=len(facts["classes"]), resolution=facts["resolution"])
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return cast(prepared(frozen(model), device), precision)


def teachers(folders: Sequence[Path], device: torch.device, precision: Precision = "fp32") -> list[nn.Module]:
    """The networks of several `teach` steps, in order."""
    return [teacher(folder, device, precision) for folder in folders]


def teacher_facts(folder: Path) -> dict[str, Any]:
    """What a `teach` step says of its network: name, classes, resolution, accuracy, hash."""
    facts: dict[str, Any] = json.loads((folder / "teacher.json").read_bytes())
    return facts


def images_of(folders: Sequence[Path]) -> Tensor:
    """(I, K, 3, H, W) uint8: the images of one subject, whose parts were made apart."""
    parts = [arrays.read(folder / "images.npy") for folder in folders]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def chunks(count: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive ranges of `size`, the last one shorter."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _room(device: torch.device) -> int:
    """Bytes that an array may have: what the plan reckons with, and on a GPU no more than a share of what is free."""
    if device.type != "cuda":
        return RESIDENT_BYTES
    return min(RESIDENT_BYTES, int(devices.free_bytes(device) * RESIDENT_SHARE))
