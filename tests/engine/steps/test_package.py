"""The download explains itself, and gives the card's accuracies with torch alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
from engine.plan import StepKind
from engine.store import sha256_of_file
from tests.engine.jobs import Job

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
    assert len(re.findall(r"± \d", text)) == 8  # four rows, last and best
    for words in ("Random real images", "chosen on the test set", "half batch", "on the real test set", "train.py"):
        assert words in text


def test_the_card_of_large_images_says_what_else_training_needs(manifest: dict[str, Any], job: Job) -> None:
    text = card(manifest | {"resolution": 224, "has_test": False}, job.spec, [])
    assert "torch and torchvision" in text and "`--test FOLDER`" in text
    assert "torchvision, whose" not in card(manifest, job.spec, []) and "--test" not in card(manifest, job.spec, [])


@pytest.mark.slow
def test_with_torch_alone_it_gives_the_accuracies_of_the_card(download: Path) -> None:
    found = []
    for labels in ("soft", "hard"):
        done = subprocess.run(
            [sys.executable, "-c", BARE, "--threads", "1", "--labels", labels],
            cwd=download,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found += re.findall(r"last ([\d.]+) %, best ([\d.]+) %   \(card: ([\d.]+), ([\d.]+)\)", done.stdout)
    assert len(found) == 4
    assert all((last, best) == (card_last, card_best) for last, best, card_last, card_best in found)


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
