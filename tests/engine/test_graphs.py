"""A step that is replayed comes to what it comes to as it stands, or is not replayed."""

from __future__ import annotations

from collections.abc import Hashable, Iterator

import pytest
import torch
from torch import Tensor, nn

from engine import graphs
from engine.graphs import SWITCH, Replays, rate, set_rate
from engine.precision import Precision
from tests.pretended_gpu import CUDA, Gpu, pretended_gpu

CPU = torch.device("cpu")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    monkeypatch.setattr(Replays, "failed", False)
    with pretended_gpu() as gpu:
        yield gpu


class Adder:
    """Adds its inputs to a sum, and tells it."""

    def __init__(self, device: torch.device) -> None:
        self.sum = torch.zeros(2, device=device)
        self.times = 0

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        self.times += 1
        assert isinstance(kind, int)
        self.sum += kind * value
        return (self.sum * 1,)

    def changed(self) -> list[Tensor]:
        return [self.sum]


def sums(step: Adder, device: torch.device, kinds: list[int], precision: Precision = "bf16") -> list[float]:
    replays, told = Replays(device, precision), []
    for turn, kind in enumerate(kinds):
        value = torch.full((2,), float(turn), device=device)
        told.append(replays.do(step, step.changed, kind, value)[0][0].item())
    return told


KINDS = [1, 1, 1, 2, 1, 2, 2, 1, 2]
EXPECTED = [0.0, 1, 3, 9, 13, 23, 35, 42, 58]


def test_on_a_cpu_a_step_is_done_as_it_stands() -> None:
    step = Adder(CPU)
    assert sums(step, CPU, KINDS) == EXPECTED
    assert step.times == len(KINDS)


def test_on_a_gpu_it_is_recorded_the_second_time_and_replayed_from_then_on(gpu: Gpu) -> None:
    step = Adder(CUDA)
    assert sums(step, CUDA, KINDS) == EXPECTED
    assert step.times == 2 * 3  # of each kind: twice as it stands, and recorded
    assert gpu.launches["graph"] == len(KINDS) - 2


def test_inputs_of_another_shape_are_recorded_apart(gpu: Gpu) -> None:
    step = Adder(CUDA)
    replays = Replays(CUDA, "bf16")
    for _ in range(3):
        for size in (2, 1):
            replays.do(step, step.changed, 1, torch.ones(size, device=CUDA))
    assert step.sum.tolist() == [6, 6] and step.times == 6


@pytest.mark.parametrize(("precision", "switch"), [("fp16", "1"), ("bf16", "0")])
def test_neither_in_fp16_nor_where_it_is_switched_off(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, precision: Precision, switch: str
) -> None:
    monkeypatch.setenv(SWITCH, switch)
    step = Adder(CUDA)
    assert sums(step, CUDA, KINDS, precision) == EXPECTED
    assert not gpu.launches["graph"]


class Impatient(Adder):
    """Waits for the device."""

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        if value[0].item() < 0:
            return (self.sum * 1,)
        return super().__call__(kind, value)


class Fickle(Adder):
    """Does what no graph can know of."""

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        (told,) = super().__call__(kind, value)
        self.sum += self.times % 2
        return (told,)


class Large(Adder):
    """Has no room while it is recorded: the third time, after it was done as it stands twice."""

    at = 3

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        told = super().__call__(kind, value)
        if self.times == self.at and not Replays.failed:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return told


class Larger(Large):
    """Has no room beside other records already."""

    at = 2


class Odd(Adder):
    """Fails in a way of its own while it is recorded."""

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        told = super().__call__(kind, value)
        if self.times == 3 and not Replays.failed:
            raise KeyError("kernel")
        return told


class Gambler(Adder):
    """Draws other numbers when it is recorded, and does not use them."""

    def __call__(self, kind: Hashable, value: Tensor) -> tuple[Tensor]:
        told = super().__call__(kind, value)
        if self.times == 2 and not Replays.failed:
            torch.rand(1, device=value.device)
        return told


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Impatient, "not permitted"),
        (Fickle, "other numbers"),
        (Gambler, "other numbers"),
        (Large, "out of memory"),
        (Larger, "out of memory"),
        (Odd, "kernel"),
    ],
)
def test_a_step_that_cannot_be_replayed_goes_on_as_it_stands(
    gpu: Gpu, caplog: pytest.LogCaptureFixture, kind: type[Adder], why: str
) -> None:
    step, straight = kind(CUDA), kind(CUDA)
    told = sums(step, CUDA, [1] * 6)
    again = sums(kind(CUDA), CUDA, [1] * 6)  # in this process nothing is recorded again
    assert again == sums(straight, CUDA, [1] * 6, "fp16")
    if kind is not Fickle:  # which counts how often it is called
        assert told == again
    assert why in caplog.text and len(caplog.records) == 1
    assert gpu.launches["graph"] == (why == "other numbers")


@pytest.mark.parametrize(
    ("torch_is", "switch", "wanted"),
    [("2.11.0", "", False), ("2.11.0", "1", True), ("2.13.1+cu130", "", True), ("2.15.0", "0", False)],
)
def test_an_older_torch_records_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, torch_is: str, switch: str, wanted: bool
) -> None:
    monkeypatch.setattr(torch, "__version__", torch_is)
    monkeypatch.setenv(SWITCH, switch)
    assert graphs.is_wanted() == wanted


def test_what_is_not_a_number_is_the_same_on_both_sides(gpu: Gpu) -> None:
    step, replays = Adder(CUDA), Replays(CUDA, "bf16")
    for _ in range(4):
        replays.do(step, step.changed, 1, torch.full((2,), torch.nan, device=CUDA))
    assert gpu.launches["graph"] == 3 and not Replays.failed


def test_records_are_forgotten_when_tensors_are_others(gpu: Gpu) -> None:
    step, replays = Adder(CUDA), Replays(CUDA, "bf16")
    for _ in range(2):
        for _ in range(3):
            replays.do(step, step.changed, 1, torch.ones(2, device=CUDA))
        step.sum = step.sum.clone()
        replays.forget()
    assert step.sum.tolist() == [6, 6] and gpu.launches["graph"] == 4


def test_nothing_of_a_step_is_kept_when_its_owner_is_gone(gpu: Gpu) -> None:
    step = Adder(CUDA)
    sums(step, CUDA, KINDS)
    del step
    assert gpu.bytes_now == 0


def test_dropout_draws_as_it_does_unrecorded(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = nn.Dropout(0.5)

    def drawn(switch: str) -> list[list[float]]:
        monkeypatch.setenv(SWITCH, switch)
        torch.manual_seed(0)
        replays = Replays(CUDA, "bf16")
        return [
            replays.do(lambda _, values: (drop(values),), list, None, torch.ones(8, device=CUDA))[0].tolist()
            for _ in range(5)
        ]

    assert drawn("1") == drawn("0")
    assert gpu.launches["graph"] == 4


def test_a_rate_is_changed_where_a_graph_reads_it(gpu: Gpu) -> None:
    for device in (CPU, CUDA):
        values = torch.zeros(2, device=device).requires_grad_()
        adam = torch.optim.Adam([values], lr=rate(0.5, device), fused=True)
        before = adam.param_groups[0]["lr"]
        set_rate(adam, 0.25)
        assert adam.param_groups[0]["lr"] == 0.25
        assert (adam.param_groups[0]["lr"] is before) == (device == CUDA)
