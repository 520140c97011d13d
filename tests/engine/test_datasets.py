"""Facts of data sets, known without decoding them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.datasets import describe, is_from_imagenet
from engine.errors import DatasetInvalid, DatasetMissing
from engine.folders import index_folder
from engine.sources import Digits, Folder, Torchvision
from tests.engine.pictures import COLOURS, photo, write_class, write_set


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
    with pytest.raises(DatasetInvalid, match="1 class folder, ant; at least 2"):
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
    with pytest.raises(DatasetInvalid, match=r"There is no folder for cat in test/"):
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


def _tiny(root: Path) -> Path:
    """Tiny-ImageNet as it is unpacked, with an unlabelled test set beside its validation set."""
    names = ("n01443537", "n01629819", "n01641577")
    lines = []
    (root / "val" / "images").mkdir(parents=True)
    for name, colour in zip(names, COLOURS.values(), strict=True):
        write_class(root / "train" / name / "images", colour, 4)
        (root / "train" / name / f"{name}_boxes.txt").write_text("a box")
        photo(colour, 1).save(root / "val" / "images" / f"val_{name}.png")
        lines.append(f"val_{name}.png\t{name}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    write_class(root / "test" / "images", (0, 0, 0), 2)
    return root


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path: Path) -> None:
    train, test, classes = index_folder(Folder(path=str(_tiny(tmp_path))))
    assert classes == ("n01443537", "n01629819", "n01641577") and is_from_imagenet(classes)
    assert [source.label for source in train] == [0] * 4 + [1] * 4 + [2] * 4
    assert train[0].path == "train/n01443537/images/000.png"
    assert [(source.path, source.label) for source in test] == [
        (f"val/images/val_{name}.png", label) for label, name in enumerate(classes)
    ]


def test_a_list_that_names_an_image_which_is_not_there_is_refused_at_its_line(tmp_path: Path) -> None:
    (_tiny(tmp_path) / "val" / "images" / "val_n01443537.png").unlink()
    with pytest.raises(DatasetInvalid, match=r"Line 3 of .*val_annotations\.txt names 'val_n01443537\.png'"):
        describe(Folder(path=str(tmp_path)))


def test_classes_are_those_that_are_named_in_the_order_in_which_they_are(tmp_path: Path) -> None:
    spec = Folder(path=str(write_set(tmp_path)), classes=("cat", "ant"))
    train, test, classes = index_folder(spec)
    assert classes == ("cat", "ant") and describe(spec).classes == classes
    assert {(Path(source.path).parent.name, source.label) for source in train + test} == {("cat", 0), ("ant", 1)}


def test_the_order_of_classes_is_part_of_what_a_data_set_is(tmp_path: Path) -> None:
    path = str(write_set(tmp_path))
    orders = (None, ("ant", "bee", "cat"), ("cat", "bee", "ant"))
    digests = [describe(Folder(path=path, classes=order)).digest for order in orders]
    assert digests[0] == digests[1] != digests[2]


def test_a_class_that_is_not_there_is_pointed_at_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="no class folder 'dog'") as caught:
        describe(Folder(path=str(write_set(tmp_path)), classes=("ant", "dog")))
    assert caught.value.report.pointer == "/dataset/classes/1" and "ant, bee, cat" in caught.value.report.hint


def test_a_class_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="names something twice"):
        Folder(path="/images", classes=("ant", "ant"))
