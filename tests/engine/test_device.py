"""Devices and precisions: picked, or refused with the remedy."""

from __future__ import annotations

import pytest
import torch

from engine import device as devices
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
