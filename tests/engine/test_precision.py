"""Precisions: what they compute in, what they leave alone, and what "auto" comes to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.precision import (
    Precision,
    computing,
    gradient_scaler,
    precision_for,
    restore_scaler,
    scaler_state,
    training_layout,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_are_computed_in_the_precision_asked_for(precision: Precision, dtype: torch.dtype) -> None:
    layer = nn.Linear(4, 4)
    with computing(precision, CPU):
        assert layer(torch.ones(2, 4)).dtype == dtype
    assert layer(torch.ones(2, 4)).dtype == layer.weight.dtype == torch.float32


def test_fp32_means_fp32_even_inside_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), computing("fp32", CPU):
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype == torch.float32


def test_a_wish_is_kept_and_auto_is_something_a_cpu_can_do() -> None:
    assert precision_for("fp32", CPU) == "fp32"
    assert precision_for("auto", CPU) in {"fp32", "bf16"}


def test_a_cpu_trains_in_torchs_own_layout_where_numbers_are_exact() -> None:
    assert training_layout(CPU, "fp32") == torch.contiguous_format
    assert training_layout(torch.device("cuda"), "fp32") == torch.channels_last


def test_matrix_units_of_a_cpu_take_channels_last() -> None:
    bf16_pays = precision_for("auto", CPU) == "bf16"
    assert (training_layout(CPU, "bf16") == torch.channels_last) == bf16_pays


def test_a_scaler_that_does_nothing_has_nothing_to_remember() -> None:
    scaler = gradient_scaler("bf16", CPU)
    assert scaler_state(scaler) == {}
    restore_scaler(scaler, {})


def test_a_scaler_goes_on_from_what_it_had_learnt() -> None:
    first, second = gradient_scaler("fp16", CPU), gradient_scaler("fp16", CPU)
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    torch.autograd.backward(first.scale((weight * torch.inf).sum()))
    first.step(optimizer)
    first.update()
    restore_scaler(second, scaler_state(first))
    assert second.get_scale() == first.get_scale() < 65536
    assert torch.equal(weight, torch.ones(2))
