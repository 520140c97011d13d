"""A download whose images and labels do not belong together is never finished."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.datasets import ImageFolder

from engine import class_order, png
from engine.archive import Archive, class_folder
from engine.errors import PackageInvalid

NAMES = ("zebra", "ant", "10", "9", *(f"class {index}" for index in range(8)))
FOLDERS = [class_folder(label, name) for label, name in enumerate(NAMES)]


def _zip(path: Path, folders: Sequence[str], ipcs: int = 2) -> Path:
    """Images whose grey level is ten times their label."""
    with Archive(path) as archive:
        for ipc in range(ipcs):
            for label, folder in enumerate(folders):
                pixels = torch.full((3, 4, 4), 10 * label).byte()
                archive.add(f"images/{folder}/{ipc:05d}.png", png.encode(pixels))
    return path


def _by_grey_level(images: Tensor, labels: Tensor) -> float:
    return 100 * (images[:, 0, 0, 0] == 10 * labels).float().mean().item()


def test_folders_are_classes_in_the_order_that_imagefolder_gives_them(tmp_path: Path) -> None:
    found = list(class_order.classes_of(_zip(tmp_path / "1.zip", FOLDERS)))
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        archive.extractall(tmp_path)
    folder = ImageFolder(str(tmp_path / "images"))
    assert [name for name, _ in found] == folder.classes == FOLDERS
    assert [images[0, 0, 0, 0].item() for _, images in found] == [10 * label for label in range(len(NAMES))]


def test_a_good_package_passes(tmp_path: Path) -> None:
    path = _zip(tmp_path / "1.zip", FOLDERS)
    assert class_order.compare(list(class_order.recognised_pct(path, FOLDERS, _by_grey_level)), 100) == 100


def test_folders_that_sort_otherwise_than_the_labels_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "1.zip", NAMES)  # no index in front: "10" comes first
    with pytest.raises(PackageInvalid, match="finds 10 as class 0, which the labels call zebra"):
        list(class_order.recognised_pct(path, NAMES, _by_grey_level))


@pytest.mark.parametrize("folders", [FOLDERS[:-1], [*FOLDERS, "00012_more"]], ids=["too few", "too many"])
def test_a_class_that_is_missing_or_foreign_is_refused(folders: list[str], tmp_path: Path) -> None:
    path = _zip(tmp_path / "1.zip", folders)
    with pytest.raises(PackageInvalid, match=r"as class 1[12]"):
        list(class_order.recognised_pct(path, FOLDERS, _by_grey_level))


def test_images_that_the_teachers_no_longer_recognise_are_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "1.zip", FOLDERS)
    shifted = class_order.recognised_pct(path, FOLDERS, lambda images, labels: _by_grey_level(images, labels + 1))
    with pytest.raises(PackageInvalid, match=r"recognise 0\.0 % of the packaged images, and 97\.0 % while"):
        class_order.compare(list(shifted), 97)


def test_what_was_hard_to_recognise_before_may_be_so_still() -> None:
    assert class_order.compare([5, 0], 9) == 2.5
    assert class_order.compare([90, 90], 98) == 90


@pytest.mark.parametrize("real", [0.0, 10.0])
def test_weights_that_know_the_classes_in_another_order_are_named(real: float) -> None:
    with pytest.raises(PackageInvalid, match=r"resnet18.*another order") as raised:
        class_order.foreign("resnet18", real, 95, classes=10)
    assert raised.value.report.pointer == "/teachers"


@pytest.mark.parametrize(("real", "recognised"), [(60.0, 95.0), (9.0, 20.0), (50.1, 95.0)])
def test_weights_that_are_merely_weak_are_not(real: float, recognised: float) -> None:
    class_order.foreign("resnet18", real, recognised, classes=10)
