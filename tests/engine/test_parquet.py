"""Data sets of parquet files: what the library `datasets` writes is read as it reads it, and what is unclear is asked."""

from __future__ import annotations

import socket
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from engine.datasets import describe
from engine.errors import DatasetInvalid, DatasetMissing
from engine.hub import within
from engine.parquet import Shard
from engine.reading import open_origin
from engine.sources import HuggingFace
from tests.engine.pictures import COLOURS, photo

CLASSES = list(COLOURS)


def rows_of(labels: list[Any]) -> dict[str, list[Any]]:
    """One PNG for each label, in the class's colour."""
    files = []
    for row, label in enumerate(labels):
        buffer = BytesIO()
        photo(COLOURS[label if isinstance(label, str) else CLASSES[label]], row).save(buffer, "PNG")
        files.append({"bytes": buffer.getvalue(), "path": f"{row}.png"})
    return {"image": files, "label": labels}


def write(path: Path, labels: list[Any], *, names: list[str] | None = CLASSES, **columns: str) -> None:
    """A file as `datasets` writes it, with features where there are names. columns: other names for image and label."""
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": "image", "label": "label"} | columns
    rows = {columns[name]: values for name, values in rows_of(labels).items()}
    if names is None:
        pq.write_table(pa.table(rows), path, row_group_size=4)
        return
    features = datasets.Features(
        {columns["image"]: datasets.Image(), columns["label"]: datasets.ClassLabel(names=names)}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path, batch_size=4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Training images in two files of several row groups, and a test split."""
    root = tmp_path / "pets"
    write(root / "data" / "train-00000-of-00002.parquet", [2, 0, 1] * 4)
    write(root / "data" / "train-00001-of-00002.parquet", [1, 1, 0, 2])
    write(root / "data" / "test-00000-of-00001.parquet", [0, 1, 2, 2])
    return root


def spec_of(folder: Path, **fields: Any) -> HuggingFace:
    return HuggingFace(name=str(folder), **fields)


def refusal(folder: Path, **fields: Any) -> tuple[str, str, str]:
    """Message, hint and pointer."""
    with pytest.raises((DatasetInvalid, DatasetMissing)) as caught:
        describe(spec_of(folder, **fields))
    report = caught.value.report
    return report.message, report.hint, report.pointer


def test_classes_and_counts_are_known_without_decoding(folder: Path) -> None:
    facts = describe(spec_of(folder))
    assert facts.classes == ("ant", "bee", "cat") and facts.title == "pets"
    assert facts.train_per_class == (5, 6, 5) and facts.test_per_class == (1, 1, 2)
    assert facts.resolution == 16  # the images are 40 x 30 px


def test_images_and_labels_are_those_that_the_library_reads(folder: Path, tmp_path: Path) -> None:
    import datasets

    files = sorted(map(str, (folder / "data").glob("train-*")))
    theirs = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    ours = open_origin(spec_of(folder), tmp_path, tmp_path).train
    assert [picture.label for picture in ours] == theirs["label"][:]
    for picture, image in zip(ours, theirs["image"], strict=True):
        assert np.array_equal(np.asarray(picture.load()), np.asarray(image))


def test_without_a_test_split_a_share_of_each_class_is_held_back(folder: Path, tmp_path: Path) -> None:
    (folder / "data" / "test-00000-of-00001.parquet").unlink()
    origin = open_origin(spec_of(folder, test_fraction=0.4), tmp_path, tmp_path)
    assert [sum(p.label == label for p in origin.test) for label in range(3)] == [2, 2, 2]
    names = [picture.name for picture in (*origin.train, *origin.test)]
    assert len(names) == len(set(names)) == 16
    assert describe(spec_of(folder, test_fraction=0.4)).test_per_class == (2, 2, 2)


def test_a_test_split_without_labels_is_passed_over(folder: Path) -> None:
    write(folder / "data" / "test-00000-of-00001.parquet", [-1, -1, -1])
    write(folder / "data" / "validation-00000-of-00001.parquet", [0, 1, 2])
    assert describe(spec_of(folder)).test_per_class == (1, 1, 1)
    message, hint, pointer = refusal(folder, test_split="test")
    assert "Row 0 of split 'test' has the label -1" in message and hint and pointer == "/dataset/label_column"


def test_labels_that_are_words_are_classes_in_their_order(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", ["cat", "ant", "cat", "ant"], names=None)
    assert describe(spec_of(tmp_path, test_fraction=0.5)).classes == ("ant", "cat")


def test_columns_are_found_by_what_they_hold(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 2, image="img", label="fine")
    assert describe(spec_of(tmp_path)).train_per_class == (1, 1, 1)


def test_a_folder_for_each_split_as_the_hub_converts_sets(tmp_path: Path) -> None:
    for config in ("full", "small"):
        write(tmp_path / config / "train" / "0000.parquet", [0, 1, 2] * (2 if config == "small" else 3))
        write(tmp_path / config / "test" / "0000.parquet", [0, 1, 2])
    assert describe(spec_of(tmp_path, config="small")).train_images == 6
    message, hint, pointer = refusal(tmp_path)
    assert "several configurations" in message and "full, small" in hint and pointer == "/dataset/config"
    assert refusal(tmp_path, config="tiny")[2] == "/dataset/config"


@pytest.mark.parametrize("field", ["train_split", "test_split", "image_column", "label_column"])
def test_what_is_not_there_is_pointed_at_with_what_is(folder: Path, field: str) -> None:
    message, hint, pointer = refusal(folder, **{field: "nothing"})
    assert "'nothing'" in message and pointer == f"/dataset/{field}"
    assert hint.endswith({"train_split": "test, train.", "test_split": "test, train."}.get(field, f"{field[:5]}."))


def test_a_split_of_which_the_hub_holds_a_part_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "default" / "partial-train" / "0000.parquet", [0, 1, 2])
    assert "only a part of split 'train'" in refusal(tmp_path)[0]


def test_a_class_without_an_image_is_named(folder: Path) -> None:
    write(folder / "data" / "test-00000-of-00001.parquet", [0, 1, 1])
    assert "Class 'cat' has no image for testing" in refusal(folder)[0]


def test_a_damaged_file_is_named(folder: Path) -> None:
    path = folder / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert "data/train-00001-of-00002.parquet cannot be read" in refusal(folder)[0]


def test_a_folder_without_parquet_files_is_refused(tmp_path: Path) -> None:
    message, hint, pointer = refusal(tmp_path)
    assert "no parquet file" in message and "source: folder" in hint and pointer == "/dataset/name"


def test_the_digest_changes_with_the_files_that_are_used(folder: Path) -> None:
    before = describe(spec_of(folder)).digest
    write(folder / "data" / "unused-00000-of-00001.parquet", [0, 1, 2])
    assert describe(spec_of(folder)).digest == before
    write(folder / "data" / "train-00001-of-00002.parquet", [1, 1, 0, 1, 2])
    assert describe(spec_of(folder)).digest != before


@pytest.mark.parametrize(
    ("path", "split", "config"),
    [
        ("train.parquet", "train", "default"),
        ("data/train-00000-of-00257-ab12cd.parquet", "train", "default"),
        ("plain_text/test-00000-of-00001.parquet", "test", "plain_text"),
        ("cifar100/train/0003.parquet", "train", "cifar100"),
        ("train/0000.parquet", "train", "default"),
        ("data/valid_1.parquet", "valid", "default"),
    ],
)
def test_splits_and_configurations_are_read_from_paths(path: str, split: str, config: str) -> None:
    shard = Shard(path=path, version="", open=Path)
    assert (shard.split, shard.config) == (split, config)


def _no_network(*_: Any, **__: Any) -> Any:
    raise OSError("Name or service not known")


def test_without_a_network_the_remedy_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    with pytest.raises(DatasetMissing) as caught:
        describe(HuggingFace(name="somebody/flowers"))
    report = caught.value.report
    assert report.message.startswith("somebody/flowers cannot be read from the Hugging Face Hub: ")
    assert "absolute path" in report.hint and report.pointer == "/dataset/name"


def test_a_hub_that_does_not_answer_is_not_waited_for() -> None:
    answer = Event()
    with pytest.raises(DatasetMissing, match=r"no answer within 0\.05 s"):
        within("somebody/flowers", answer.wait, limit_s=0.05)
    answer.set()
