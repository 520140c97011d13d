"""Data sets: facts that planning needs (classes, counts, digest), known without decoding an image. Torch-free."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from engine.errors import DatasetInvalid, DatasetMissing
from engine.sources import DatasetSpec, Digits, Folder, Torchvision
from engine.spec import sha256_of

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
USUAL_SIDES = (8, 16, 32, 64, 128, 224)  # px; what a folder's resolution defaults to one of
TEST_FOLDERS = ("test", "val")

Statistics = tuple[
    tuple[float, float, float], tuple[float, float, float]
]  # mean and std per channel, of pixels in 0..1
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The authors' values (recipe.md 2.1; cifar10 from their relabel.py).
KNOWN_STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
DIGITS_TEST_EVERY = 5  # the 5th, 10th, ... image of each digit is for testing


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image file of a folder: where it is, and its class."""

    path: str  # relative to the data set's folder
    label: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a data set before any image is decoded."""

    title: str
    classes: tuple[str, ...]  # index -> name, in the order of every label
    train_per_class: tuple[int, ...]
    test_per_class: tuple[int, ...]
    resolution: int  # px
    digest: str  # changes when the images do

    @property
    def train_images(self) -> int:
        return sum(self.train_per_class)

    @property
    def test_images(self) -> int:
        return sum(self.test_per_class)


def held_back_count(images: int, per_class: int) -> int:
    """How many of a class's training images are kept from every method, to choose the best epoch by: at most a tenth."""
    return min(per_class, images // 10)


def describe(spec: DatasetSpec) -> Facts:
    """The facts of a data set. Raises DatasetMissing or DatasetInvalid, naming file and remedy."""
    match spec:
        case Digits():
            return _digits(spec)
        case Torchvision():
            return _torchvision(spec)
        case Folder():
            return _folder(spec)


def _digits(spec: Digits) -> Facts:
    test = tuple(count // DIGITS_TEST_EVERY for count in DIGITS_PER_CLASS)
    return Facts(
        title="Handwritten digits (scikit-learn)",
        classes=tuple(str(digit) for digit in range(10)),
        train_per_class=tuple(count - held for count, held in zip(DIGITS_PER_CLASS, test, strict=True)),
        test_per_class=test,
        resolution=spec.resolution,
        digest="scikit-learn/digits/1",
    )


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle "
    "caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant "
    "flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man "
    "maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree "
    "plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail "
    "snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout "
    "tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100_CLASSES = tuple(_CIFAR100.split())


def _torchvision(spec: Torchvision) -> Facts:
    count = {"cifar10": 10, "cifar100": 100}[spec.name]
    names = CIFAR10_CLASSES if spec.name == "cifar10" else CIFAR100_CLASSES
    return Facts(
        title={"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[spec.name],
        classes=names,
        train_per_class=(50_000 // count,) * count,
        test_per_class=(10_000 // count,) * count,
        resolution=spec.resolution,
        digest=f"torchvision/{spec.name}/1",
    )


def _folder(spec: Folder) -> Facts:
    train, test, classes = index_folder(spec)
    counts = [Counter(source.label for source in sources) for sources in (train, test)]
    first = Path(spec.path) / train[0].path
    return Facts(
        title=Path(spec.path).name,
        classes=classes,
        train_per_class=tuple(counts[0][label] for label in range(len(classes))),
        test_per_class=tuple(counts[1][label] for label in range(len(classes))),
        resolution=spec.resolution or _usual_side(first),
        digest=_digest(spec, train + test),
    )


def index_folder(spec: Folder) -> tuple[list[Source], list[Source], tuple[str, ...]]:
    """Training files, test files and class names of a folder, in sorted order.

    Raises DatasetMissing when there is no such folder, DatasetInvalid for a single class, an empty class, or a
    test set whose classes are not those of the training set.
    """
    root = Path(spec.path)
    if not root.is_dir():
        raise DatasetMissing(
            f"There is no folder {spec.path}.",
            hint="Give the path of a folder of classes on the server.",
            pointer="/dataset/path",
        )
    train_root = root / "train" if (root / "train").is_dir() else root
    test_root = (
        next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None) if train_root != root else None
    )
    by_class = _files_by_class(root, train_root)
    classes = tuple(by_class)
    if test_root is None:
        return *_split(by_class, spec.test_fraction), classes
    test_by_class = _files_by_class(root, test_root)
    if tuple(test_by_class) != classes:
        differing = sorted(set(classes) ^ set(test_by_class))
        raise DatasetInvalid(
            f"The classes of {train_root.name}/ and {test_root.name}/ differ: {', '.join(differing[:5])}.",
            hint="Both folders must hold the same class folders.",
        )
    return _sources(by_class), _sources(test_by_class), classes


def _files_by_class(root: Path, folder: Path) -> dict[str, list[str]]:
    """Class name -> image paths relative to `root`; both sorted."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    _refuse_broken(names, folder)
    if len(names) < 2:
        raise DatasetInvalid(
            f"{folder} holds {len(names)} class folder{'s' if len(names) != 1 else ''}; at least 2 are needed.",
            hint="Put the images of each class in a folder of their own: <path>/train/<class>/<image>.",
        )
    by_class = {name: _images(root, folder / name) for name in names}
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise DatasetInvalid(
            f"Class {empty[0]!r} has no image in {folder / empty[0]}.",
            hint=f"Add images ({', '.join(sorted(SUFFIXES))}) or remove the folder.",
            classes=empty[:20],
        )
    return by_class


def _images(root: Path, folder: Path) -> list[str]:
    names = sorted(
        entry.name
        for entry in os.scandir(folder)
        if entry.is_file() and Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    )
    _refuse_broken(names, folder)
    relative = folder.relative_to(root)
    return [str(relative / name) for name in names]


def _refuse_broken(names: list[str], folder: Path) -> None:
    """Raises DatasetInvalid for a name that is no UTF-8: it could neither be shown nor stored."""
    broken = next((name for name in names if any("\ud800" <= character <= "\udfff" for character in name)), None)
    if broken is not None:
        raise DatasetInvalid(f"The name {broken!r} in {folder} is not valid UTF-8.", hint="Rename it.")


def _sources(by_class: dict[str, list[str]]) -> list[Source]:
    return [Source(path=path, label=label) for label, files in enumerate(by_class.values()) for path in files]


def _split(by_class: dict[str, list[str]], test_fraction: float) -> tuple[list[Source], list[Source]]:
    """Hold back a share of each class for testing, chosen by the hash of the file name: no order, no seed."""
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for name, files in by_class.items():
        if len(files) < 2:
            raise DatasetInvalid(
                f"Class {name!r} has a single image, which cannot be split into training and test.",
                hint="Add images, or give the folder train/ and test/ folders.",
            )
        count = min(max(round(len(files) * test_fraction), 1), len(files) - 1)
        held = set(sorted(files, key=lambda path: hashlib.sha256(path.encode()).digest())[:count])
        train[name] = [path for path in files if path not in held]
        test[name] = [path for path in files if path in held]
    return _sources(train), _sources(test)


def _usual_side(path: Path) -> int:
    """The largest usual side that the first image fills."""
    try:
        with Image.open(path) as image:
            shorter = min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetInvalid(
            f"{path} is not an image that can be read: {error}.", hint="Replace or remove the file.", file=str(path)
        ) from error
    return max((side for side in USUAL_SIDES if side <= shorter), default=USUAL_SIDES[0])


def _digest(spec: Folder, sources: list[Source]) -> str:
    """Hash of names, sizes and times of change: any edit of any image changes it, and no image is read."""
    root = Path(spec.path)
    entries = []
    for source in sources:
        status = (root / source.path).stat()
        entries.append((source.path, source.label, status.st_size, status.st_mtime_ns))
    return sha256_of(entries)
