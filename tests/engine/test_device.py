"""Devices and precisions: picked, or refused with the remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from engine import device as devices
from engine import native
from engine.errors import SpecInvalid
from tests.pretended_gpu import CUDA, MEMORY, Gpu, pretended_gpu

CPU = torch.device("cpu")
NO_WAY = "GET was unable to find an engine to execute this computation"


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with pretended_gpu() as gpu:
        yield gpu


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert devices.pick().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert devices.pick("cpu") == CPU


@pytest.mark.parametrize(("wish", "words"), [("gpu7", "is no device"), ("cuda:99", "torch finds")])
def test_a_device_that_is_not_there_is_refused(wish: str, words: str) -> None:
    with pytest.raises(SpecInvalid, match=words) as caught:
        devices.pick(wish)
    assert caught.value.report.hint


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(SpecInvalid, match="no GPU") as caught:
        devices.resolve("fp16", CPU)
    assert caught.value.report.pointer == "/precision"


@pytest.mark.parametrize("wish", ["fp32", "bf16"])
def test_a_wish_is_a_command(wish: str) -> None:
    assert devices.resolve(wish, CPU) == wish  # type: ignore[arg-type]


def test_the_environment_names_versions_and_machine() -> None:
    found = devices.environment(CPU)
    assert found["torch"] == torch.__version__ and found["device"] == "cpu"
    assert all(isinstance(value, str) for value in found.values())


def test_the_environment_says_what_computes_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.environment(CPU)["norms"] == "C"
    monkeypatch.setattr(native, "norms", lambda: None)
    assert devices.environment(CPU)["norms"] == "torch"


def test_the_peak_counts_what_was_held_since_it_was_forgotten_and_given_back() -> None:
    slack = 2**22  # the kernel counts pages per thread and adds them up now and then
    devices.forget_peak(CPU)
    before = devices.peak_bytes(CPU)
    torch.ones(2**24)  # 64 MiB, gone at once
    after = devices.peak_bytes(CPU)
    assert before is not None and after is not None and 2**26 - slack <= after - before < 2**27
    devices.forget_peak(CPU)
    again = devices.peak_bytes(CPU)
    assert again is not None and again < after - 2**25


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("wish", ["auto", "cuda", "cuda:0"])
def test_a_gpu_that_is_picked_has_a_number_as_torch_wants_it(wish: str) -> None:
    device = devices.pick(wish)
    devices.configure(device)
    assert device == CUDA and device.index == 0


def test_the_peak_of_a_gpu_is_what_its_allocator_took_of_it(gpu: Gpu) -> None:
    devices.forget_peak(CUDA)  # before anything is on it
    torch.zeros(2**20, device=CUDA)
    held = torch.zeros(2**18, device=CUDA)
    assert (devices.peak_bytes(CUDA), gpu.bytes_now) == (2**22, held.nbytes)
    devices.forget_peak(CUDA)
    assert devices.peak_bytes(CUDA) == 2**22  # it is kept still
    devices.give_back(CUDA)
    devices.forget_peak(CUDA)
    assert devices.peak_bytes(CUDA) == held.nbytes


def test_what_is_given_back_is_also_what_refers_to_itself(gpu: Gpu) -> None:
    circle = [torch.zeros(2**20, device=CUDA)]
    circle.append(circle)  # type: ignore[arg-type]
    del circle
    devices.give_back(CUDA)
    assert gpu.taken_bytes == 0


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    ],
)
@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_a_gpus_libraries_say_in_words_that_memory_ran_out(kind: type[Exception], words: str) -> None:
    assert devices.is_out_of_memory(kind(words), CUDA)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: unspecified launch failure",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        NO_WAY,
    ],
)
def test_what_a_kernel_did_wrong_is_not_too_little_memory(gpu: Gpu, words: str) -> None:
    assert not devices.is_out_of_memory(torch.AcceleratorError(words), CUDA)
    assert not devices.is_out_of_memory(RuntimeError(words), CPU)


def test_a_cudnn_that_finds_no_way_to_compute_lacks_memory_where_little_is_free(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.others_bytes = int(0.95 * MEMORY)
    assert devices.is_out_of_memory(RuntimeError(NO_WAY), CUDA)

    def broken(_: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(torch.cuda, "mem_get_info", broken)
    assert not devices.is_out_of_memory(RuntimeError(NO_WAY), CUDA)


def test_what_the_allocator_keeps_of_tensors_that_are_gone_is_free(gpu: Gpu) -> None:
    held = torch.zeros(2**20, device=CUDA)
    torch.zeros(2**22, device=CUDA)
    assert torch.cuda.mem_get_info(CUDA)[0] < devices.free_bytes(CUDA) == MEMORY - held.nbytes
