"""Data sets become arrays; what cannot be read is named before anything else is done."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from PIL import Image

from engine import reading
from engine.data import real_data
from engine.datasets import IMAGENET, IMAGENETTE, describe
from engine.errors import DatasetMissing, ErrorReport
from engine.events import Event, Failed, Finished
from engine.params import PrepareParams
from engine.plan import Step, StepKind
from engine.run import perform
from engine.sources import DatasetSpec, Digits, Folder, Torchvision
from engine.steps.prepare import statistics_of_pixels
from engine.store import Store
from tests.engine.jobs import CPU, Job
from tests.engine.pictures import COLOURS, photo, write_set


def _step(dataset: DatasetSpec) -> Step:
    facts = describe(dataset)
    params = PrepareParams(dataset=dataset, resolution=facts.resolution, digest=facts.digest).model_dump(mode="json")
    return Step(key="prepared", kind=StepKind.PREPARE, title="", params=params, needs={}, flop=0, size_bytes=0)


def _prepared(step: Step, root: Path) -> tuple[Path, list[Event]]:
    store = Store(root)
    out = store.attempt(step.key, 1)
    return out, list(perform(step, store, out=out, device=CPU))


def _failure(step: Step, root: Path) -> ErrorReport:
    event = _prepared(step, root)[1][-1]
    assert isinstance(event, Failed)
    return event.error


def test_digits_are_greys_of_the_asked_size(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    assert data.train.shape == (1442, 3, 8, 8) and data.test.shape == (355, 3, 8, 8)
    assert torch.equal(data.train[:, 0], data.train[:, 2])
    assert torch.bincount(data.test_labels).tolist() == list(describe(Digits()).test_per_class)
    assert data.train.max() == 255 and data.train.min() == 0


def test_statistics_are_those_of_the_training_images(job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    intensities = data.train.double().transpose(0, 1).reshape(3, -1) / 255
    torch.testing.assert_close(torch.tensor(data.statistics[0]).double(), intensities.mean(1))
    torch.testing.assert_close(torch.tensor(data.statistics[1]).double(), intensities.std(1, correction=0))


def test_a_channel_that_never_changes_divides_by_no_zero() -> None:
    mean, std = statistics_of_pixels(torch.full((4, 3, 8, 8), 51, dtype=torch.uint8))
    assert mean == pytest.approx((0.2, 0.2, 0.2)) and min(std) > 0


def test_a_folder_keeps_its_order_labels_and_file_names(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    out, events = _prepared(_step(Folder(path=str(root))), tmp_path / "store")
    assert isinstance(events[-1], Finished), events[-1]
    data = real_data(out)
    assert data.train_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert data.train_files is not None and data.train_files[6] == "train/bee/000.png"
    for label, colour in enumerate(COLOURS.values()):
        found = data.train[data.of_class(label)].float().mean((0, 2, 3))
        assert found.tolist() == pytest.approx(colour, abs=8)
    assert events[-1].result["num_classes"] == 3


def test_large_images_have_imagenets_statistics(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=2, test=1)
    out, _ = _prepared(_step(Folder(path=str(root), resolution=128)), tmp_path / "store")
    assert real_data(out).statistics == IMAGENET
    assert real_data(out).test.shape == (3, 3, 128, 128)


def test_imagenets_classes_have_its_statistics_at_any_size(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=2, test=1)
    for split in ("train", "test"):
        for name, wnid in zip(COLOURS, ("n01440764", "n02102040", "n02979186"), strict=True):
            (root / split / name).rename(root / split / wnid)
    out, _ = _prepared(_step(Folder(path=str(root), resolution=16)), tmp_path / "store")
    assert real_data(out).statistics == IMAGENET


def test_a_mixed_bag_of_files_is_read(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=1, test=1)
    ant = root / "train" / "ant"
    photo((200, 40, 30), 1).convert("L").save(ant / "grey.png")
    photo((200, 40, 30), 1).convert("CMYK").save(ant / "print.jpg")
    photo((200, 40, 30), 1).convert("P").save(ant / "palette.png")
    photo((200, 40, 30), 1, (3, 500)).save(ant / "thin.bmp")
    Image.new("I;16", (20, 20), 40_000).save(ant / "sixteen.png")
    _, events = _prepared(_step(Folder(path=str(root))), tmp_path / "store")
    assert isinstance(events[-1], Finished)


def test_every_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    broken = ["train/ant/004.png", "train/cat/001.png", "test/bee/002.png"]
    for name in broken:
        (root / name).write_bytes((root / name).read_bytes()[:300])
    report = _failure(_step(Folder(path=str(root))), tmp_path / "store")
    assert report.code == "dataset_invalid" and report.pointer == "/dataset"
    assert report.details == {"files": sorted(broken), "count": 3}
    assert "3 images cannot be read" in report.message and "Replace or remove" in report.hint


def test_of_many_broken_files_twenty_are_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", train=30)
    for path in list((root / "train" / "bee").iterdir())[1:]:
        path.write_bytes(b"broken")
    report = _failure(_step(Folder(path=str(root))), tmp_path / "store")
    assert len(report.details["files"]) == 20 and report.details["count"] == 29


def test_a_folder_that_changed_since_it_was_planned_is_refused(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    step = _step(Folder(path=str(root)))
    (root / "train" / "ant" / "000.png").unlink()
    assert "changed since the job was accepted" in _failure(step, tmp_path / "store").message


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set")
    step = _step(Folder(path=str(root)))
    root.rename(tmp_path / "elsewhere")
    assert _failure(step, tmp_path / "store").code == "dataset_missing"


def _family(error: Exception | None) -> Callable[..., object]:
    """Stands for torchvision's CIFAR10: there when its file is there; fetching raises, or writes the file."""

    def family(root: Path, *, train: bool, download: bool) -> None:
        if download and error is not None:
            raise error
        if download:
            root.mkdir(parents=True)
            (root / "batch").write_text("images")
            (root / "set.tar.gz").write_text("archive")
        if not (root / "batch").exists():
            raise RuntimeError("Dataset not found or corrupted.")

    return family


@pytest.mark.parametrize(
    "error", [URLError("unreachable"), OSError("no route"), RuntimeError("File not found or corrupted.")]
)
def test_without_a_network_the_remedy_is_a_folder(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(DatasetMissing, match="cannot be fetched from here") as caught:
        reading._fetched(_family(error), "cifar10", tmp_path)
    assert str(tmp_path / "cifar10") in caught.value.report.hint
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_fetched_once_and_its_archive_thrown_away(tmp_path: Path) -> None:
    assert reading._fetched(_family(None), "cifar10", tmp_path)[0] == tmp_path / "cifar10"
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["batch"]
    assert reading._fetched(_family(OSError("unreachable")), "cifar10", tmp_path)[0] == tmp_path / "cifar10"


def test_a_set_that_somebody_unpacked_is_found(tmp_path: Path) -> None:
    (tmp_path / "batch").write_text("images")
    assert reading._fetched(_family(OSError("unreachable")), "cifar10", tmp_path)[0] == tmp_path


def _imagenette(downloads: Path) -> None:
    """What torchvision unpacks of ImageNette, with few images."""
    for split, count in (("train", 2), ("val", 1)):
        for label, (wnid, *_) in enumerate(IMAGENETTE):
            folder = downloads / "imagenette-160px" / "imagenette2-160" / split / wnid
            folder.mkdir(parents=True)
            for index in range(count):
                photo((25 * label, 100, 100), index).save(folder / f"{wnid}_{index}.JPEG")


def test_imagenettes_classes_have_names_and_imagenets_statistics(tmp_path: Path) -> None:
    spec = Torchvision(name="imagenette", resolution=16)
    store = Store(tmp_path)
    _imagenette(store.root / "downloads")
    out, events = _prepared(_step(spec), tmp_path)
    assert isinstance(events[-1], Finished), events[-1]
    data = real_data(out)
    assert data.classes == describe(spec).classes and data.classes[:2] == ("tench", "English springer")
    assert data.statistics == IMAGENET
    assert data.train_labels.tolist() == [label for label in range(10) for _ in range(2)] and len(data.test) == 10
    assert data.train[2:4].float().mean((0, 2, 3))[0] == pytest.approx(25, abs=8)


def test_what_is_left_says_what_it_is(job: Job) -> None:
    facts = json.loads((job.folder(StepKind.PREPARE) / "data.json").read_text())
    assert set(facts) == {"title", "classes", "mean", "std", "resolution", "train_files", "test_files"}
