"""What is kept of whole steps: of those that are needed, once, and on a GPU no more than fits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine import arrays, data
from engine.data import forget_all_but, real_data, resident, teacher
from engine.plan import StepKind
from tests.engine.jobs import CPU, Job
from tests.pretended_gpu import CUDA, MEMORY, Gpu, pretended_gpu

BYTES = 2**20


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    forget_all_but([])
    yield
    forget_all_but([])


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a step that left one array of a MiB."""
    arrays.write(tmp_path / "train.npy", torch.zeros(BYTES, dtype=torch.uint8))
    return tmp_path


def is_on(device: torch.device, array: Tensor) -> bool:
    return array.device == device


def test_what_is_needed_is_read_once_and_what_is_not_is_forgotten(job: Job, gpu: Gpu) -> None:
    prepared, taught = job.folder(StepKind.PREPARE), job.folder(StepKind.TEACH)
    facts, train, model = real_data(prepared), resident(prepared, "train", CUDA), teacher(taught, CUDA)
    forget_all_but([prepared, taught])
    assert real_data(prepared) is facts and resident(prepared, "train", CUDA) is train
    assert teacher(taught, CUDA) is model
    forget_all_but([prepared])
    assert resident(prepared, "train", CUDA) is train and teacher(taught, CUDA) is not model
    del train, model
    forget_all_but([])
    assert gpu.bytes_now == 0


def test_a_teacher_in_fp32_is_the_same_whether_that_is_said_or_not(job: Job) -> None:
    taught = job.folder(StepKind.TEACH)
    assert teacher(taught, CPU) is teacher(taught, CPU, "fp32") is not teacher(taught, CPU, "bf16")


@pytest.mark.parametrize(("share", "fits"), [(0.29, True), (0.31, False)])
def test_a_gpu_takes_an_array_that_leaves_most_of_what_is_free(
    gpu: Gpu, folder: Path, share: float, fits: bool
) -> None:
    gpu.others_bytes = MEMORY - int(BYTES / share)
    assert is_on(CUDA if fits else CPU, resident(folder, "train", CUDA))


def test_what_did_not_fit_is_looked_at_anew(gpu: Gpu, folder: Path) -> None:
    gpu.others_bytes = MEMORY
    assert is_on(CPU, resident(folder, "train", CUDA))
    gpu.others_bytes = 0
    assert is_on(CUDA, resident(folder, "train", CUDA))


def test_what_this_process_has_taken_and_does_not_use_is_room(gpu: Gpu, folder: Path) -> None:
    gpu.others_bytes = MEMORY - 4 * BYTES
    torch.zeros(4 * BYTES, dtype=torch.uint8, device=CUDA)
    assert torch.cuda.mem_get_info(CUDA)[0] == 0
    assert is_on(CUDA, resident(folder, "train", CUDA))


def test_no_device_takes_more_than_the_plan_reckons_with(
    gpu: Gpu, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = arrays.read(folder / "train.npy")
    for limit, fits in ((BYTES, True), (BYTES - 1, False)):
        monkeypatch.setattr(data, "RESIDENT_BYTES", limit)
        assert (data.fitted(array, CPU) is not array) == is_on(CUDA, data.fitted(array, CUDA)) == fits
