"""Facts of data sets, known without decoding them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.datasets import describe, index_folder
from engine.errors import DatasetInvalid, DatasetMissing
from engine.sources import Digits, Folder, Torchvision
from tests.engine.pictures import COLOURS, write_class, write_set


def test_digits_have_a_fifth_for_testing() -> None:
    facts = describe(Digits(resolution=12))
    assert (facts.train_images, facts.test_images, facts.resolution) == (1442, 355, 12)


def test_cifar_is_known_before_it_is_fetched() -> None:
    facts = describe(Torchvision(name="cifar100"))
    assert len(facts.classes) == 100 and set(facts.train_per_class) == {500}


def test_a_folder_with_train_and_test(tmp_path: Path) -> None:
    facts = describe(Folder(path=str(write_set(tmp_path / "set"))))
    assert facts.classes == ("ant", "bee", "cat")
    assert facts.train_per_class == (6, 6, 6) and facts.test_per_class == (3, 3, 3)
    assert (facts.title, facts.resolution) == ("set", 16)  # the images are 40 x 30 px


def test_val_is_a_test_set_too(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "test").rename(root / "val")
    assert describe(Folder(path=str(root))).test_per_class == (3, 3, 3)


def test_without_a_test_set_a_share_of_each_class_is_held_back(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        write_class(tmp_path / name, COLOURS[name], 10)
    train, test, _ = index_folder(Folder(path=str(tmp_path), test_fraction=0.3))
    assert len(train) == 14 and len(test) == 6
    assert {source.path for source in train}.isdisjoint(source.path for source in test)


def test_an_image_more_moves_one_other_at_most(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        write_class(tmp_path / name, COLOURS[name], 10)
    spec = Folder(path=str(tmp_path), test_fraction=0.3)
    before = {source.path for source in index_folder(spec)[1]}
    (tmp_path / "ant" / "zzz.png").write_bytes((tmp_path / "ant" / "000.png").read_bytes())
    after = {source.path for source in index_folder(spec)[1]}
    assert len(before - after) <= 1 and len(after - before) <= 1


def test_any_change_of_any_image_changes_the_digest(tmp_path: Path) -> None:
    spec = Folder(path=str(write_set(tmp_path)))
    digests = [describe(spec).digest]
    os.utime(tmp_path / "train" / "ant" / "000.png", (1, 1))
    digests.append(describe(spec).digest)
    (tmp_path / "train" / "ant" / "000.png").rename(tmp_path / "train" / "ant" / "9.png")
    digests.append(describe(spec).digest)
    assert len(set(digests)) == 3


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    for name in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (root / "train" / "ant" / name).write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    assert describe(Folder(path=str(root))).train_per_class == (6, 6, 6)


def test_a_missing_folder_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetMissing, match="There is no folder") as caught:
        describe(Folder(path=str(tmp_path / "nowhere")))
    assert caught.value.report.pointer == "/dataset/path" and caught.value.report.hint


def test_a_single_class_cannot_be_distilled(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="1 class folder; at least 2"):
        describe(Folder(path=str(write_set(tmp_path, classes=("ant",)))))


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "train" / "dog").mkdir()
    with pytest.raises(DatasetInvalid, match="Class 'dog' has no image") as caught:
        describe(Folder(path=str(root)))
    assert caught.value.report.details["classes"] == ["dog"]


def test_training_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "test" / "cat").rename(root / "test" / "kat")
    with pytest.raises(DatasetInvalid, match=r"train/ and test/ differ: cat, kat"):
        describe(Folder(path=str(root)))


def test_a_class_of_one_image_cannot_be_split(tmp_path: Path) -> None:
    write_class(tmp_path / "ant", COLOURS["ant"], 1)
    write_class(tmp_path / "bee", COLOURS["bee"], 5)
    with pytest.raises(DatasetInvalid, match="'ant' has a single image"):
        describe(Folder(path=str(tmp_path)))


def test_a_first_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path)
    (root / "train" / "ant" / "000.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetInvalid, match=r"train/ant/000\.png is not an image"):
        describe(Folder(path=str(root)))


def test_a_first_file_that_says_it_is_huge_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set(tmp_path)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 1)
    with pytest.raises(DatasetInvalid, match="not an image that can be read"):
        describe(Folder(path=str(tmp_path)))


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "train" / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(DatasetInvalid, match="not valid UTF-8"):
        describe(Folder(path=str(tmp_path)))
