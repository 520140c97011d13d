"""Precisions: what they compute in, what they leave alone, and what "auto" comes to."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.models import build, frozen
from engine.precision import (
    Precision,
    cast,
    computing,
    gradient_scaler,
    precision_for,
    prepared,
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


def test_auto_is_bf16_on_a_cpu_that_multiplies_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for takes_it in (True, False):
        monkeypatch.setattr("engine.precision.multiplies_bf16", lambda takes_it=takes_it: takes_it)
        assert precision_for("auto", CPU) == ("bf16" if takes_it else "fp32")


def test_exact_numbers_on_a_cpu_are_added_up_as_torch_does() -> None:
    assert training_layout(CPU, "fp32") == torch.contiguous_format
    assert training_layout(CPU, "bf16") == training_layout(torch.device("cuda"), "fp32") == torch.channels_last


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)


def gradient(model: nn.Module, precision: Precision) -> Tensor:
    seen = images().requires_grad_()
    with computing(precision, CPU):
        logits = model(seen)
    (found,) = torch.autograd.grad(logits.float().square().sum(), seen)
    return found


@pytest.mark.parametrize("network", ["resnet18_w16", "mobilenet_v2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_were_cast_before_give_the_same_bytes(network: str, precision: Precision) -> None:
    model = prepared(frozen(build(network, num_classes=4, resolution=16, seed=0)), CPU)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(gradient(cast(model, precision), precision), gradient(model, precision))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_strided_depthwise_convolution_is_exact_on_a_cpu_and_answers_in_kind() -> None:
    layer = nn.Conv2d(3, 3, 3, stride=2, groups=3, bias=False)
    exact = prepared(copy.deepcopy(layer), CPU)
    with computing("bf16", CPU):
        rounded, answer, whole = layer(images()), exact(images(torch.bfloat16)), exact(images())
    assert rounded.dtype == answer.dtype == torch.bfloat16
    assert torch.equal(whole, layer(images()))
    assert torch.equal(answer, layer(images(torch.bfloat16).float()).bfloat16())


def test_a_prepared_network_keeps_its_names_and_numbers() -> None:
    model = build("mobilenet_v2", num_classes=4, resolution=16, seed=0)
    plain = copy.deepcopy(model).eval()
    assert list(prepared(model, CPU).state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model.eval()(images()), plain(images()), atol=1e-5, rtol=1e-5)


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
