"""The loader of a download: folders of test images are read as the server reads them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine import device as devices
from engine.data import real_data
from engine.datasets import describe
from engine.download import datasets as stand_in
from engine.download import train
from engine.download.errors import Diverged
from engine.download.teachers import read
from engine.download.train import _load, _test_folder
from engine.launch import CUBLAS
from engine.params import PrepareParams
from engine.plan import Step, StepKind
from engine.sources import Folder
from engine.store import Store
from tests.engine.jobs import CPU, attempt
from tests.engine.pictures import write_set


def test_a_folder_of_test_images_gives_the_servers_own_pixels(tmp_path: Path) -> None:
    dataset = Folder(path=str(write_set(tmp_path / "set")), resolution=128)
    params = PrepareParams(dataset=dataset, resolution=128, digest=describe(dataset).digest).model_dump(mode="json")
    step = Step(key="k", kind=StepKind.PREPARE, title="", params=params, needs={}, flop=0, size_bytes=0)
    data = real_data(attempt(step, Store(tmp_path / "store"), 1))
    facts = {"resolution": 128, "classes": [{"index": label, "name": name} for label, name in enumerate(data.classes)]}
    (tmp_path / "set" / "test" / data.classes[0] / ".DS_Store").write_bytes(b"\0")
    images, labels = _test_folder(facts, tmp_path / "set" / "test")
    assert torch.equal(images, data.test) and torch.equal(labels, data.test_labels)


def test_without_test_images_it_asks_for_a_folder() -> None:
    with pytest.raises(SystemExit, match="--test FOLDER"):
        _load({"images": []}, None, CPU)


def flags() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


@pytest.fixture
def otherwise() -> Iterator[None]:
    """Every flag as the engine does not want it."""
    cudnn, before = torch.backends.cudnn, flags()
    torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = (
        True,
        True,
        True,
        False,
    )
    yield
    torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Starts it in a download without test images, which it says when all is set up."""
    facts = {"training": {"runs": 1, "student": "convnet3", "labels": "hard"}, "images": []}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    monkeypatch.setattr(train, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "--device", "cpu"])
    (name,) = CUBLAS
    monkeypatch.setenv(name, "")  # so that it is afterwards as it was before
    monkeypatch.delenv(name)

    def started() -> None:
        with pytest.raises(SystemExit, match="--test FOLDER"):
            train.main()

    return started


def test_it_computes_as_the_engine_is_set_up(otherwise: None, start: Callable[[], None]) -> None:
    start()
    found = flags()
    devices.configure(CPU)
    assert found == flags() == (False, False, False, True)


def test_products_are_those_of_the_engine_before_cuda_is_asked_for(
    start: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,), seen = CUBLAS, []

    def asked() -> bool:
        seen.append(os.environ.get(name))
        return False

    monkeypatch.setattr(torch.cuda, "is_available", asked)
    start()
    assert seen == [CUBLAS[name]]
    monkeypatch.setenv(name, ":16:8")
    start()
    assert seen[1:] == [":16:8"]  # whoever sets it knows why


def test_weights_are_read_without_the_safetensors_library(tmp_path: Path) -> None:
    chance = torch.Generator().manual_seed(1)
    tensors = {
        "float": torch.randn(3, 4, generator=chance),
        "half": torch.randn(5, generator=chance).half(),
        "scalar": torch.tensor(7),
        "empty": torch.empty(0, 2),
        "flags": torch.tensor([True, False, True]),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"made": "here"})
    found = read(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    for name, values in tensors.items():
        assert torch.equal(found[name], values) and found[name].dtype == values.dtype


def test_the_stand_ins_are_like_what_they_stand_for() -> None:
    from engine import datasets

    assert stand_in.Statistics == datasets.Statistics
    assert "not finite at step 3" in str(Diverged("student training", 3))
