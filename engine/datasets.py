"""Data sets: facts that planning needs (classes, counts, digest), known without decoding an image. Torch-free."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from engine.errors import DatasetInvalid, DatasetMissing
from engine.folders import Source, index_folder
from engine.hub import shards_of_hub, within
from engine.parquet import Contents, contents, first_image, shards_of_folder
from engine.sources import DatasetSpec, Digits, Folder, HuggingFace, Torchvision, Upload
from engine.spec import sha256_of

USUAL_SIDES = (8, 16, 32, 64, 128, 224)  # px; what a folder's resolution defaults to one of

Statistics = tuple[
    tuple[float, float, float], tuple[float, float, float]
]  # mean and std per channel, of pixels in 0..1
IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# The authors' values (recover.py; cifar10 from relabel.py).
KNOWN_STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "imagenette": IMAGENET,
}
WNID = re.compile(r"n\d{8}")  # a noun of WordNet, which ImageNet's class folders are called by
UPLOAD_TITLE = "title.txt"  # beside the folder of an upload's classes
DIGITS_PER_CLASS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
DIGITS_TEST_EVERY = 5  # the 5th, 10th, ... image of each digit is for testing


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


def is_from_imagenet(classes: tuple[str, ...]) -> bool:
    """Whether folders are called as ImageNet's are: Tiny-ImageNet, ImageNette, ImageWoof and every subset."""
    return all(WNID.fullmatch(name) for name in classes)


def held_back_count(images: int, per_class: int) -> int:
    """How many of a class's training images are kept from every method, to choose the best epoch by: at most a tenth."""
    return min(per_class, images // 10)


def describe(spec: DatasetSpec, uploads: Path | None = None) -> Facts:
    """The facts of a data set. uploads: the store's. Raises DatasetMissing or DatasetInvalid, naming file and remedy."""
    match spec:
        case Digits():
            return _digits(spec)
        case Torchvision():
            return _torchvision(spec)
        case Folder():
            return _folder(spec)
        case HuggingFace():
            return _parquet(spec) if spec.folder else within(spec.name, partial(_parquet, spec))
        case Upload():
            return _upload(spec, uploads)


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


# Of imagenette2: wnid, name (torchvision's), training and test images.
IMAGENETTE = (
    ("n01440764", "tench", 963, 387),
    ("n02102040", "English springer", 955, 395),
    ("n02979186", "cassette player", 993, 357),
    ("n03000684", "chain saw", 858, 386),
    ("n03028079", "church", 941, 409),
    ("n03394916", "French horn", 956, 394),
    ("n03417042", "garbage truck", 961, 389),
    ("n03425413", "gas pump", 931, 419),
    ("n03445777", "golf ball", 951, 399),
    ("n03888257", "parachute", 960, 390),
)
# Title, classes, and images of each class for training and testing.
_PUBLIC: dict[str, tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]]] = {
    "cifar10": ("CIFAR-10", CIFAR10_CLASSES, (5000,) * 10, (1000,) * 10),
    "cifar100": ("CIFAR-100", CIFAR100_CLASSES, (500,) * 100, (100,) * 100),
    "imagenette": (
        "ImageNette",
        tuple(name for _, name, _, _ in IMAGENETTE),
        tuple(train for _, _, train, _ in IMAGENETTE),
        tuple(test for _, _, _, test in IMAGENETTE),
    ),
}


def _torchvision(spec: Torchvision) -> Facts:
    title, classes, train, test = _PUBLIC[spec.name]
    return Facts(
        title=title,
        classes=classes,
        train_per_class=train,
        test_per_class=test,
        resolution=spec.resolution,
        digest=f"torchvision/{spec.name}/1",
    )


def parquet_of(spec: HuggingFace) -> Contents:
    """What the files of a data set of the Hub hold, or those of a folder."""
    return contents(spec, shards_of_folder(Path(spec.folder)) if spec.folder else shards_of_hub(spec.name))


def _folder(spec: Folder) -> Facts:
    train, test, classes = index_folder(spec)
    counts = [_counted([source.label for source in sources], classes) for sources in (train, test)]
    first = Path(spec.path) / train[0].path
    return Facts(
        title=Path(spec.path).name,
        classes=classes,
        train_per_class=counts[0],
        test_per_class=counts[1],
        resolution=spec.resolution or _usual_side(first, first),
        digest=_digest(spec, train + test),
    )


def _upload(spec: Upload, uploads: Path | None) -> Facts:
    if uploads is None or not (uploads / spec.id).is_dir():
        raise DatasetMissing(
            f"There is no upload {spec.id[:12]}... here.",
            hint="Upload the archive to this server again: it gets the same id.",
            pointer="/dataset/id",
        )
    title = (uploads / spec.id / UPLOAD_TITLE).read_text(encoding="utf-8")
    # Made from the archive and from how this version unpacks it: when it was unpacked does not matter.
    return replace(_folder(spec.unpacked(uploads)), title=title, digest=f"upload/{spec.id}/1")


def _parquet(spec: HuggingFace) -> Facts:
    found = parquet_of(spec)
    side = spec.resolution
    if side is None:
        path = found.train.shards[0].path
        side = _usual_side(BytesIO(first_image(found)), f"The first image of {path}")
    return Facts(
        title=Path(spec.name).name,
        classes=found.classes,
        train_per_class=_counted(found.train.labels, found.classes),
        test_per_class=_counted(found.test.labels, found.classes),
        resolution=side,
        digest=found.digest,
    )


def _counted(labels: Sequence[int], classes: tuple[str, ...]) -> tuple[int, ...]:
    counts: Counter[int] = Counter(labels)
    return tuple(counts[label] for label in range(len(classes)))


def _usual_side(file: Path | BinaryIO, name: Path | str) -> int:
    """The largest usual side that the first image fills."""
    try:
        with Image.open(file) as image:
            shorter = min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetInvalid(
            f"{name} is not an image that can be read: {error}.", hint="Replace or remove the file.", file=str(name)
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
