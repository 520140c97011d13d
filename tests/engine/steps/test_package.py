"""The download explains itself, and gives the card's accuracies with torch alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import arrays
from engine.archive import class_folder
from engine.card import card
from engine.data import real_data
from engine.methods import Herding
from engine.plan import StepKind
from engine.scores import Score
from engine.store import sha256_of_file
from tests.engine.jobs import Job, carried_out

WITHOUT = ("numpy", "PIL", "torchvision", "pydantic", "safetensors", "yaml", "sklearn", "app", "worker")
BARE = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({WITHOUT!r}))
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def download(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked zip."""
    (archive,) = job.folder(StepKind.PACKAGE).glob("fadrm-*.zip")
    folder = tmp_path_factory.mktemp("download")
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        opened.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def manifest(download: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((download / "manifest.json").read_text())
    return facts


def test_every_file_has_the_checksum_that_is_written_down(download: Path, manifest: dict[str, Any]) -> None:
    sums = {line[66:]: line[:64] for line in (download / "SHA256SUMS").read_text().splitlines()}
    files = {str(path.relative_to(download)) for path in download.rglob("*") if path.is_file()}
    assert set(sums) == files - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((download / name).read_bytes()).hexdigest() == digest
    for name, entry in manifest["files"].items():
        assert entry == {"size_bytes": (download / name).stat().st_size, "sha256": sums[name]}


def test_images_are_those_of_the_job_and_any_program_reads_them(
    download: Path, manifest: dict[str, Any], job: Job
) -> None:
    images = arrays.read(job.folder(StepKind.RECOVER) / "images.npy")
    assert len(manifest["images"]) == 20
    for entry in manifest["images"]:
        with Image.open(download / entry["file"]) as image:
            pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
        assert torch.equal(pixels, images[entry["ipc"], entry["class"]])


def test_images_are_listed_in_the_order_of_the_labels(manifest: dict[str, Any]) -> None:
    assert [(entry["ipc"], entry["class"]) for entry in manifest["images"]] == [
        (i, k) for i in range(2) for k in range(10)
    ]
    assert manifest["images"][13]["file"] == "images/00003_3/00001.png"


def test_each_image_says_which_crops_it_came_from(manifest: dict[str, Any], job: Job) -> None:
    data = real_data(job.folder(StepKind.PREPARE))
    for entry in manifest["images"]:
        (source,) = entry["sources"]
        assert data.train_labels[source["index"]] == entry["class"]
        assert set(source) == {"index", "top", "left", "height", "width"}


def test_labels_can_be_mapped_by_numpy(download: Path, job: Job) -> None:
    logits = np.load(download / "labels" / "logits.npy", mmap_mode="r")
    assert logits.shape == (6, 20, 10) and logits.dtype == np.float16
    for path in (download / "labels").iterdir():
        assert sha256_of_file(path) == sha256_of_file(job.folder(StepKind.RELABEL) / path.name)


def test_what_made_it_is_written_down(manifest: dict[str, Any], job: Job) -> None:
    assert manifest["spec"] == job.spec.model_dump(mode="json")
    assert manifest["teachers"][0]["sha256"] == sha256_of_file(job.folder(StepKind.TEACH) / "weights.safetensors")
    assert {"torch", "python"} <= set(manifest["environment"])
    assert len(manifest["scores"]) == 4 and all(len(row["runs"]) == 2 for row in manifest["scores"])
    assert [entry["name"] for entry in manifest["classes"]] == [str(digit) for digit in range(10)]


def test_the_card_is_honest(download: Path) -> None:
    text = (download / "card.md").read_text()
    assert "20 images of 8 px, 2 for each of 10 classes" in text
    assert len(re.findall(r"± \d", text)) == 12  # four rows: last, chosen, best
    for words in (
        "Random real images",
        "chosen on the test set",
        "half batch",
        "on the real test set",
        "train.py",
        "Chosen",
    ):
        assert words in text


def test_the_card_of_large_images_says_what_else_training_needs(manifest: dict[str, Any], job: Job) -> None:
    text = card(manifest | {"resolution": 224, "has_test": False}, job.spec, [])
    assert "torch and torchvision" in text and "`--test FOLDER`" in text
    assert "torchvision, whose" not in card(manifest, job.spec, []) and "--test" not in card(manifest, job.spec, [])


def test_the_card_without_students_promises_none(manifest: dict[str, Any], job: Job) -> None:
    text = card(manifest, job.spec, [])
    assert "The job named no student" in text and "the first teacher's network, and prints" in text
    for words in ("again and prints", "Last epoch", "Top-1"):
        assert words not in text


def test_the_card_says_what_the_method_is_and_who_published_it(manifest: dict[str, Any], job: Job) -> None:
    assert "by FADRM (arXiv 2506.24125; 5 iterations in 2 stages)" in card(manifest, job.spec, [])
    herding = job.spec.model_copy(update={"method": Herding()})
    assert "choosing real images by herding" in card(manifest, herding, [])


def test_the_card_of_a_nested_ipc_says_of_what_it_is_a_part(manifest: dict[str, Any], job: Job) -> None:
    larger = job.spec.model_copy(update={"ipc": 50})
    assert "the first of each class of a set of 50 per class" in card(manifest, larger, [])
    assert "the first of each class" not in card(manifest, job.spec, [])


def test_the_card_marks_a_quick_look(manifest: dict[str, Any], job: Job) -> None:
    quick = job.spec.evaluation.model_copy(update={"quick": True})
    scores = [Score(subject="distilled", student="resnet18", labels="hard", last=(90.0,), best=(91.0,))]
    assert "comparable with nothing" in card(manifest, job.spec.model_copy(update={"evaluation": quick}), scores)


def test_the_card_has_the_upper_bound_and_the_curves_of_classes_in_groups(manifest: dict[str, Any], job: Job) -> None:
    runs = [{"run": 0, "curve": [[5, 40.0], [10, 30.0]]}, {"run": 1, "curve": [[5, 50.0], [10, 31.0]]}]
    learnt = [{"subject": "distilled", "student": "convnet3_w32", "steps": 2, "runs": runs}]
    full = [{"student": "convnet3_w32", "top1_pct": 97.25}]
    text = card(manifest | {"continual": learnt, "full_data": full}, job.spec, [])
    assert "ConvNet, 3 layers, width 32: 97.2 %" in text
    assert "| Images | 5 classes | 10 classes |" in text and "| Distilled images | 45.0 | 30.5 |" in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "mean logits (fp16) for 6 epochs"),
        ({"pool": 2}, "Only 2 epochs are stored"),
        ({"top_k": 3}, "the 3 largest logits are stored"),
        ({"recipe_only": True}, "No label is stored"),
    ],
)
def test_the_card_says_how_labels_are_kept(
    changes: dict[str, Any], words: str, manifest: dict[str, Any], job: Job
) -> None:
    assert words in card(manifest | {"labels": manifest["labels"] | changes}, job.spec, [])


def test_the_card_names_nothing_as_left_out_or_chosen_that_is_not(manifest: dict[str, Any], job: Job) -> None:
    text = card(manifest | {"labels": manifest["labels"] | {"pool": 6, "top_k": 10}}, job.spec, [])
    assert "are stored;" not in text and "Chosen epoch" not in text


@pytest.mark.slow
def test_with_torch_alone_it_gives_the_accuracies_of_the_card(download: Path) -> None:
    found = [*_trained(download, "soft"), *_trained(download, "hard")]
    assert len(found) == 4
    assert all((last, best) == (card_last, card_best) for last, best, card_last, card_best in found)


@pytest.mark.slow
def test_without_labels_it_makes_them_again_and_gives_the_same_accuracies(job: Job, tmp_path: Path) -> None:
    alone = job.spec.evaluation.model_copy(update={"runs": 1, "baselines": (), "labels": ("soft",)})
    labels = job.spec.labels.model_copy(update={"recipe_only": True})
    again = carried_out(job.spec.model_copy(update={"labels": labels, "evaluation": alone}), job.store.root)
    (archive,) = again.folder(StepKind.PACKAGE).glob("fadrm-*.zip")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path)
    shutil.rmtree(tmp_path / "labels")  # as if nothing but the recipe were there
    [(last, best, card_last, card_best)] = _trained(tmp_path, "soft")
    assert (last, best) == (card_last, card_best)
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert sha256_of_file(tmp_path / "teachers" / "0.safetensors") == facts["teachers"][0]["sha256"]


def _trained(download: Path, labels: str) -> list[tuple[str, str, str, str]]:
    """Last and best accuracy of each run of train.py, and beside them the card's."""
    done = subprocess.run(
        [sys.executable, "-c", BARE, "--threads", "1", "--labels", labels],
        cwd=download,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return re.findall(r"last ([\d.]+) %, best ([\d.]+) %   \(card: ([\d.]+), ([\d.]+)\)", done.stdout)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("tench", "00003_tench"),
        ("../../etc", "00003_.._.._etc"),
        ("grün/blau", "00003_gr_n_blau"),
        ("x" * 99, "00003_" + "x" * 40),
    ],
)
def test_class_folders_are_safe_and_sorted(name: str, folder: str) -> None:
    assert class_folder(3, name) == folder
