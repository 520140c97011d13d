"""Where real images come from: the pictures of each kind of data set, not decoded yet. S pixels of a square result."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from engine.datasets import DIGITS_TEST_EVERY, IMAGENETTE, parquet_of
from engine.decoding import opened, square
from engine.errors import DatasetMissing
from engine.folders import index_folder
from engine.hub import fetched, within
from engine.parquet import Rows
from engine.rows import Images
from engine.sources import DatasetSpec, Digits, Folder, HuggingFace, Torchvision, Upload
from engine.store import temporary
from engine.upright import UNREADABLE


class ReadError(Exception):
    """One image that cannot be read."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A real image that is not decoded yet."""

    name: str
    label: int
    load: Callable[[], Image.Image]

    def read(self, resolution: int, margin: bool) -> Tensor:
        """(3, S, S) uint8. margin: cut it out of a slightly larger one, as large test images are. Raises ReadError."""
        try:
            return square(self.load(), resolution, margin=margin)
        except UNREADABLE as error:
            raise ReadError(self.name, str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A data set before decoding."""

    classes: tuple[str, ...]
    train: tuple[Picture, ...]
    test: tuple[Picture, ...]
    train_files: list[str] | None = None
    test_files: list[str] | None = None
    note: str = ""


def open_origin(spec: DatasetSpec, downloads: Path, uploads: Path) -> Origin:
    """The pictures of a data set. Raises DatasetMissing or DatasetInvalid."""
    match spec:
        case Digits():
            return _digits()
        case Folder():
            return _folder(spec)
        case Upload():
            return _folder(spec.unpacked(uploads))
        case Torchvision(name="imagenette"):
            return _imagenette(spec, downloads)
        case Torchvision():
            return _torchvision(spec, downloads)
        case HuggingFace():
            return _hugging_face(spec, downloads)


def _folder(spec: Folder) -> Origin:
    train, test, classes = index_folder(spec)
    root = Path(spec.path)
    pictures = [
        tuple(Picture(name=item.path, label=item.label, load=partial(opened, root / item.path)) for item in items)
        for items in (train, test)
    ]
    return Origin(
        classes=classes,
        train=pictures[0],
        test=pictures[1],
        train_files=[item.path for item in train],
        test_files=[item.path for item in test],
    )


def _hugging_face(spec: HuggingFace, downloads: Path) -> Origin:
    if spec.folder:
        found, files = parquet_of(spec), None
    else:
        found = within(spec.name, partial(parquet_of, spec))
        used = dict.fromkeys((*found.train.shards, *found.test.shards))
        files = dict(zip(used, fetched(spec.name, tuple(used), downloads), strict=True))

    def pictures(rows: Rows) -> tuple[Picture, ...]:
        images = Images([files[shard] if files else shard.open() for shard in rows.shards], found.image_column)
        split = rows.shards[0].split
        return tuple(
            Picture(name=f"{split} row {number}", label=label, load=partial(_of_row, images, number))
            for number, label in zip(rows.numbers, rows.labels, strict=True)
        )

    return Origin(
        classes=found.classes,
        train=pictures(found.train),
        test=pictures(found.test),
        note=f"{spec.name} fetched to {downloads}" if files else "",
    )


def _of_row(images: Images, row: int) -> Image.Image:
    return opened(BytesIO(images.read(row)))


def _digits() -> Origin:
    seen = [0] * 10
    splits: tuple[list[Picture], list[Picture]] = ([], [])
    for index, (*levels, label) in enumerate(_digit_rows()):
        seen[label] += 1
        image = Image.frombytes("L", (8, 8), bytes(round(level * 255 / 16) for level in levels))
        picture = Picture(name=f"digit {index}", label=label, load=partial(_itself, image))
        splits[seen[label] % DIGITS_TEST_EVERY == 0].append(picture)
    return Origin(classes=tuple(str(digit) for digit in range(10)), train=tuple(splits[0]), test=tuple(splits[1]))


def _digit_rows() -> list[list[int]]:
    """64 levels 0..16 and the label of each digit. The file is read without scikit-learn, whose import takes seconds."""
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise DatasetMissing("The digits ship with scikit-learn, which is not installed.", hint="Install scikit-learn.")
    path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return [
        [int(float(value)) for value in line.split(",")] for line in gzip.decompress(path.read_bytes()).decode().split()
    ]


def _torchvision(spec: Torchvision, downloads: Path) -> Origin:
    from torchvision import datasets

    family = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[spec.name]
    root, note = _fetched(family, spec.name, downloads)
    splits = [family(root, train=train, download=False) for train in (True, False)]
    pictures = [
        tuple(
            Picture(name=f"{spec.name} {index}", label=label, load=partial(_from_array, split.data[index]))
            for index, label in enumerate(split.targets)
        )
        for split in splits
    ]
    return Origin(classes=tuple(splits[0].classes), train=pictures[0], test=pictures[1], note=note)


def _imagenette(spec: Torchvision, downloads: Path) -> Origin:
    """Of the two sizes that it comes in, the smaller one where it suffices."""
    size = "160px" if spec.resolution <= 128 else "320px"
    root, note = _fetched(partial(_imagenette_of, size), f"imagenette-{size}", downloads)
    folder = Folder(
        path=str(root / f"imagenette2-{size.removesuffix('px')}"), classes=tuple(row[0] for row in IMAGENETTE)
    )
    return replace(_folder(folder), classes=tuple(row[1] for row in IMAGENETTE), note=note)


def _imagenette_of(size: str, root: Path, *, train: bool, download: bool) -> object:
    """ImageNette's splits by the names that CIFAR's have."""
    from torchvision.datasets import Imagenette

    return Imagenette(root, split="train" if train else "val", size=size, download=download)


def _fetched(family: Callable[..., object], name: str, downloads: Path) -> tuple[Path, str]:
    """The folder that holds a set's files, fetching them on first use, and what to say of it."""
    home = downloads / name
    for root in (home, downloads):
        if _is_there(family, root):
            return root, f"{name} found in {root}"
    waiting = temporary(home)
    try:
        family(waiting, train=True, download=True)
        _tidy(waiting)
        waiting.rename(home)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        if _is_there(family, home):  # another worker was first
            return home, f"{name} found in {home}"
        raise DatasetMissing(
            f"{name} is not in {downloads}, and it cannot be fetched from here: {error}.",
            hint=f"Unpack torchvision's files of {name} into {home}, or connect this worker to the network.",
            name=name,
        ) from error
    finally:
        shutil.rmtree(waiting, ignore_errors=True)
    return home, f"{name} fetched to {home}"


def _is_there(family: Callable[..., object], root: Path) -> bool:
    try:
        family(root, train=True, download=False)
        family(root, train=False, download=False)
    except (OSError, RuntimeError):
        return False
    return True


def _tidy(root: Path) -> None:
    """The archive is not needed once it is unpacked."""
    for path in (*root.glob("*.tar.gz"), *root.glob("*.tgz")):
        path.unlink()


def _itself(image: Image.Image) -> Image.Image:
    return image


def _from_array(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Image.Image:
    return Image.fromarray(pixels)
