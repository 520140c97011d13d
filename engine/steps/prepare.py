"""Decode a data set once: square RGB images of one size, as arrays that every later step reads from the disk.

Leaves train.npy, test.npy (N, 3, S, S) uint8, train_labels.npy, test_labels.npy (N,) int64, data.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from engine import arrays
from engine.checkpoint import opened_array, place
from engine.context import Context, Result, State, Telling
from engine.data import chunks
from engine.datasets import IMAGENET, KNOWN_STATISTICS, Statistics, describe, is_from_imagenet
from engine.errors import DatasetInvalid
from engine.events import Event, Log, Progress, Started
from engine.networks import SMALL_BELOW_PX
from engine.params import PrepareParams
from engine.reading import Origin, Picture, ReadError, open_origin
from engine.sources import Torchvision
from engine.store import sync

CHUNK = 512  # images between two lines of progress
THREADS = 8
NAMED_FILES = 20  # of those that cannot be read, how many the error names
SMALLEST_STD = 1e-3  # of intensities 0..1: a channel that never changes must not be divided by 0


def prepare(context: Context[PrepareParams]) -> Telling:
    """Decode everything, and refuse the set as a whole when a file cannot be read."""
    title = _refuse_changed(context)
    origin = open_origin(context.params.dataset, context.downloads, context.uploads)
    writer = _Writer.begin(context, origin)
    yield Started(total=writer.total, unit="images", resumed_at=writer.done)
    if origin.note:
        yield Log(message=origin.note)
    yield from writer.write()
    writer.refuse_unreadable()
    place(sorted(writer.folder.iterdir()), context.out)
    return _describe(context, origin, title)


def _refuse_changed(context: Context[PrepareParams]) -> str:
    """The set's title. Raises DatasetInvalid when the files are no longer those that the job was planned with."""
    facts = describe(context.params.dataset, context.uploads)
    if facts.digest != context.params.digest:
        raise DatasetInvalid(
            "The data set's files have changed since the job was accepted.",
            hint="Submit the job again: it is then planned with the files as they are now.",
        )
    return facts.title


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Decodes with several threads, a chunk at a time, and remembers which files could not be read."""

    context: Context[PrepareParams]
    splits: dict[str, tuple[Picture, ...]]
    folder: Path
    images: dict[str, Tensor]  # (N, 3, S, S) uint8 of each split, on the disk
    done: int = 0  # images of all splits
    unreadable: list[tuple[str, str]] = field(default_factory=list)  # file, reason

    @classmethod
    def begin(cls, context: Context[PrepareParams], origin: Origin) -> Self:
        """Before the first image, or where a checkpoint was taken."""
        found, side = context.resumed(), context.params.resolution
        folder = context.checkpoints.large_files(found, exact=True)
        splits = {"train": origin.train, "test": origin.test}
        images = {
            split: opened_array(
                folder / f"{split}.npy", (len(pictures), 3, side, side), torch.uint8, going_on=found is not None
            )
            for split, pictures in splits.items()
        }
        writer = cls(context=context, splits=splits, folder=folder, images=images)
        if found is not None:
            writer.done = found.rank
            writer.unreadable = [(file, reason) for file, reason in found.facts["unreadable"]]
        return writer

    @property
    def total(self) -> int:
        return sum(len(pictures) for pictures in self.splits.values())

    def write(self) -> Iterator[Event]:
        """Decode what is not decoded yet."""
        before = 0  # images of the splits before
        with ThreadPoolExecutor(THREADS) as pool:
            for split, pictures in self.splits.items():
                arrays.write(self.folder / f"{split}_labels.npy", torch.tensor([picture.label for picture in pictures]))
                for start, stop in chunks(len(pictures), CHUNK):
                    if self.done < before + stop:
                        self._decode(split, pool, slice(start, stop))
                        self.done = before + stop
                        yield Progress(done=self.done, total=self.total, unit="images")
                        if self.done < self.total:
                            yield from self.context.pause(self.done, self.state)
                before += len(pictures)

    def state(self) -> State:
        """How many images are safe on the disk."""
        for split in self.splits:
            sync(self.folder / f"{split}.npy")
        return {}, {"unreadable": self.unreadable}

    def _decode(self, split: str, pool: ThreadPoolExecutor, part: slice) -> None:
        side = self.context.params.resolution
        decode = partial(_decoded, resolution=side, margin=split == "test" and side >= SMALL_BELOW_PX)
        for index, found in enumerate(pool.map(decode, self.splits[split][part]), part.start):
            if isinstance(found, ReadError):
                self.unreadable.append((found.file, found.reason))
            else:
                self.images[split][index] = found

    def refuse_unreadable(self) -> None:
        """Raises DatasetInvalid, naming files and remedy, when any could not be read."""
        if not self.unreadable:
            return
        files = sorted(file for file, _ in self.unreadable)
        count = len(files)
        raise DatasetInvalid(
            f"{count} image{' cannot' if count == 1 else 's cannot'} be read: {', '.join(files[:3])}"
            f"{', ...' if count > 3 else ''} ({self.unreadable[0][1]}).",
            hint="Replace or remove these files, then submit the job again.",
            files=files[:NAMED_FILES],
            count=count,
        )


def _decoded(picture: Picture, *, resolution: int, margin: bool) -> Tensor | ReadError:
    try:
        return picture.read(resolution, margin)
    except ReadError as error:
        return error


def _describe(context: Context[PrepareParams], origin: Origin, title: str) -> Result:
    """Write data.json, and return what of it is worth showing."""
    mean, std = _statistics(context, origin.classes)
    facts = {
        "title": title,
        "classes": list(origin.classes),
        "mean": mean,
        "std": std,
        "resolution": context.params.resolution,
        "train_files": origin.train_files,
        "test_files": origin.test_files,
    }
    (context.out / "data.json").write_text(json.dumps(facts, ensure_ascii=False))
    shown = {"num_classes": len(origin.classes), "train_images": len(origin.train), "test_images": len(origin.test)}
    return shown | {name: facts[name] for name in ("resolution", "mean", "std")}


def _statistics(context: Context[PrepareParams], classes: tuple[str, ...]) -> Statistics:
    """Published values where there are; ImageNet's for its own and for large images; else the training images'."""
    params = context.params
    if isinstance(params.dataset, Torchvision):
        return KNOWN_STATISTICS[params.dataset.name]
    if params.resolution >= SMALL_BELOW_PX or is_from_imagenet(classes):
        return IMAGENET
    return statistics_of_pixels(arrays.read(context.out / "train.npy"))


def statistics_of_pixels(images: Tensor) -> Statistics:
    """Mean and standard deviation per channel of (N, 3, H, W) uint8, as intensities 0..1."""
    sums, squares, count = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), 0
    for start, stop in chunks(len(images), CHUNK):
        levels = images[start:stop].double().transpose(0, 1).reshape(3, -1) / 255
        sums, squares, count = sums + levels.sum(1), squares + levels.square().sum(1), count + levels.shape[1]
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=SMALLEST_STD)
    red, green, blue = mean.tolist()
    red_std, green_std, blue_std = std.tolist()
    return (red, green, blue), (red_std, green_std, blue_std)
