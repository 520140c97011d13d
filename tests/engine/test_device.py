"""Devices and precisions: picked, or refused with the remedy."""

from __future__ import annotations

import pytest
import torch

from engine import device as devices
from engine import native
from engine.errors import SpecInvalid

CPU = torch.device("cpu")


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
