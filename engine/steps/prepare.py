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

import torch
from torch import Tensor

from engine import arrays
from engine.context import Context, Result, Telling
from engine.data import chunks
from engine.datasets import IMAGENET, KNOWN_STATISTICS, Statistics, describe
from engine.decoding import LARGE_PX
from engine.errors import DatasetInvalid
from engine.events import Event, Log, Progress, Started
from engine.params import PrepareParams
from engine.reading import Origin, Picture, ReadError, open_origin
from engine.spec import Torchvision

CHUNK = 512  # images between two lines of progress
THREADS = 8
NAMED_FILES = 20  # of those that cannot be read, how many the error names
SMALLEST_STD = 1e-3  # of intensities 0..1: a channel that never changes must not be divided by 0


def prepare(context: Context[PrepareParams]) -> Telling:
    """Decode everything, and refuse the set as a whole when a file cannot be read."""
    params = context.params
    title = _refuse_changed(params)
    origin = open_origin(params.dataset, context.downloads)
    total = len(origin.train) + len(origin.test)
    yield Started(total=total, unit="images", device="cpu")
    if origin.note:
        yield Log(message=origin.note)
    writer = _Writer(out=context.out, resolution=params.resolution, total=total)
    yield from writer.write("train", origin.train)
    yield from writer.write("test", origin.test)
    writer.refuse_unreadable()
    return _describe(context, origin, title)


def _refuse_changed(params: PrepareParams) -> str:
    """The set's title. Raises DatasetInvalid when the files are no longer those that the job was planned with."""
    facts = describe(params.dataset)
    if facts.digest != params.digest:
        raise DatasetInvalid(
            "The data set's files have changed since the job was accepted.",
            hint="Submit the job again: it is then planned with the files as they are now.",
        )
    return facts.title


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Decodes with several threads, a chunk at a time, and remembers which files could not be read."""

    out: Path
    resolution: int  # px
    total: int
    done: int = 0
    unreadable: list[ReadError] = field(default_factory=list)

    def write(self, split: str, pictures: tuple[Picture, ...]) -> Iterator[Event]:
        """Write `<split>.npy` and `<split>_labels.npy`."""
        shape = (len(pictures), 3, self.resolution, self.resolution)
        images = arrays.create(self.out / f"{split}.npy", shape, torch.uint8)
        arrays.write(self.out / f"{split}_labels.npy", torch.tensor([picture.label for picture in pictures]))
        decode = partial(self._decoded, margin=split == "test" and self.resolution >= LARGE_PX)
        with ThreadPoolExecutor(THREADS) as pool:
            for start, stop in chunks(len(pictures), CHUNK):
                for index, pixels in enumerate(pool.map(decode, pictures[start:stop]), start):
                    if pixels is not None:
                        images[index] = pixels
                self.done += stop - start
                yield Progress(done=self.done, total=self.total, unit="images")

    def refuse_unreadable(self) -> None:
        """Raises DatasetInvalid, naming files and remedy, when any could not be read."""
        if not self.unreadable:
            return
        files = sorted(error.file for error in self.unreadable)
        count = len(files)
        raise DatasetInvalid(
            f"{count} image{' cannot' if count == 1 else 's cannot'} be read: {', '.join(files[:3])}"
            f"{', ...' if count > 3 else ''} ({self.unreadable[0].reason}).",
            hint="Replace or remove these files, then submit the job again.",
            files=files[:NAMED_FILES],
            count=count,
        )

    def _decoded(self, picture: Picture, *, margin: bool) -> Tensor | None:
        try:
            return picture.read(self.resolution, margin)
        except ReadError as error:
            self.unreadable.append(error)
            return None


def _describe(context: Context[PrepareParams], origin: Origin, title: str) -> Result:
    """Write data.json, and return what of it is worth showing."""
    mean, std = _statistics(context)
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


def _statistics(context: Context[PrepareParams]) -> Statistics:
    """Published values where there are; ImageNet's for large images; else those of the training images."""
    params = context.params
    if isinstance(params.dataset, Torchvision):
        return KNOWN_STATISTICS[params.dataset.name]
    if params.resolution >= LARGE_PX:
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
