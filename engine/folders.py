"""Folders of classes: which files are for training and testing, and the order of the classes. No image is read. Torch-free.

Two layouts: `train/<class>/*` with `test/` or `val/` alike (or classes alone), and Tiny-ImageNet's as it is unpacked,
`train/<class>/images/*` with `val/images/*` and the classes of these in `val/val_annotations.txt`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DatasetInvalid, DatasetMissing
from engine.sources import Folder

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
TEST_FOLDERS = ("test", "val")
ANNOTATIONS = "val_annotations.txt"  # Tiny-ImageNet's: file, class and box of each image, tabs between
NAMED = 5  # classes that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One image file of a folder: where it is, and its class."""

    path: str  # relative to the data set's folder
    label: int


def index_folder(spec: Folder) -> tuple[list[Source], list[Source], tuple[str, ...]]:
    """Training files, test files and class names of a folder: classes as the spec orders them, else sorted.

    Raises DatasetMissing when there is no such folder, DatasetInvalid for a single class, an empty class, a class
    that is not there, or a test set whose classes are not those of the training set.
    """
    root = Path(spec.path)
    if not root.is_dir():
        raise DatasetMissing(
            f"There is no folder {spec.path}.",
            hint="Give the path of a folder of classes on the server.",
            pointer="/dataset/path",
        )
    train_root = root / "train" if (root / "train").is_dir() else root
    classes = _chosen(_class_names(train_root), spec, train_root)
    by_class = _files_by_class(root, train_root, classes)
    if train_root != root and (root / "val" / ANNOTATIONS).is_file():
        return _sources(by_class), _sources(_annotated(root, classes)), classes
    test_root = (
        next((root / name for name in TEST_FOLDERS if (root / name).is_dir()), None) if train_root != root else None
    )
    if test_root is None:
        return *_split(by_class, spec.test_fraction), classes
    here, there = set(classes), set(_class_names(test_root))
    _refuse_lacking(test_root, here - there)
    if not spec.classes:
        _refuse_lacking(train_root, there - here)
    return _sources(by_class), _sources(_files_by_class(root, test_root, classes)), classes


def _refuse_lacking(folder: Path, classes: set[str]) -> None:
    if classes:
        shown = [*sorted(classes)[:NAMED], *(["..."] if len(classes) > NAMED else [])]
        raise DatasetInvalid(
            f"There is no folder for {', '.join(shown)} in {folder.name}/.",
            hint="train/ and its test set must hold the same class folders.",
        )


def image_folder(class_folder: Path) -> Path:
    """Where a class's images lie: in its folder, or, as in Tiny-ImageNet, in `images` below it."""
    below = class_folder / "images"
    return below if below.is_dir() else class_folder


def _chosen(found: list[str], spec: Folder, folder: Path) -> tuple[str, ...]:
    """The spec's classes, or all that were found."""
    for index, name in enumerate(spec.classes or ()):
        if name not in found:
            raise DatasetInvalid(
                f"There is no class folder {name!r} in {folder}.",
                hint=f"It has {len(found)}: {', '.join(found[:NAMED])}{', ...' if len(found) > NAMED else ''}.",
                pointer=f"/dataset/classes/{index}",
            )
    if len(found) < 2:
        raise DatasetInvalid(
            f"{folder} holds {f'1 class folder, {found[0]}' if found else '0 class folders'}; at least 2 are needed.",
            hint="Put the images of each class in a folder of their own: <path>/train/<class>/<image>.",
        )
    return spec.classes or tuple(found)


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    _refuse_broken(names, folder)
    return names


def _files_by_class(root: Path, folder: Path, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """Class name -> image paths relative to `root`, sorted."""
    by_class = {name: _images(root, image_folder(folder / name)) for name in classes}
    _refuse_empty(by_class, folder)
    return by_class


def _refuse_empty(by_class: dict[str, list[str]], folder: Path) -> None:
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise DatasetInvalid(
            f"Class {empty[0]!r} has no image in {folder / empty[0]}.",
            hint=f"Add images ({', '.join(sorted(SUFFIXES))}) or remove the folder.",
            classes=empty[:20],
        )


def _annotated(root: Path, classes: tuple[str, ...]) -> dict[str, list[str]]:
    """Class name -> Tiny-ImageNet's validation images, by its list of them."""
    listing = root / "val" / ANNOTATIONS
    by_class: dict[str, list[str]] = {name: [] for name in classes}
    images = set(_images(root, root / "val" / "images"))
    for number, line in enumerate(listing.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        name, _, rest = line.partition("\t")
        path, label = str(Path("val", "images", name)), rest.partition("\t")[0]
        if label not in by_class:
            continue
        if path not in images:
            raise DatasetInvalid(
                f"Line {number} of {listing} names {name[:80]!r}, which is not in val/images.",
                hint="Unpack the data set again.",
            )
        by_class[label].append(path)
    without = next((name for name, files in by_class.items() if not files), None)
    if without is not None:
        raise DatasetInvalid(f"Class {without!r} has no image in {listing}.", hint="Unpack the data set again.")
    return {name: sorted(files) for name, files in by_class.items()}


def _images(root: Path, folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DatasetInvalid(f"There is no folder {folder}.", hint="Unpack the data set again.")
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
        held = held_back(files, test_fraction)
        train[name] = [path for path in files if path not in held]
        test[name] = [path for path in files if path in held]
    return _sources(train), _sources(test)


def held_back(files: list[str], test_fraction: float) -> set[str]:
    """Those of a class, at least two, that are for testing: a share of them, never all."""
    count = min(max(round(len(files) * test_fraction), 1), len(files) - 1)
    return set(sorted(files, key=lambda path: hashlib.sha256(path.encode()).digest())[:count])
