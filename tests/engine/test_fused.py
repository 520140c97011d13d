"""Fused norms give what torch's layers give one after another, whatever stands around a norm."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine import native
from engine.fused import FusedNorm, fused
from engine.models import SMALL, build, frozen
from engine.moments import channel_moments
from engine.statistics import BatchNormStatistics, batch_norms, convolutions
from tests.engine import golden
from tests.engine.norms import Apart, distance, drawn, maps, norm, outcome, told_of

# Deeper or wider forms of networks that are tested.
DEEPER = {"resnet101", "wide_resnet50_2", "densenet169", "densenet201", "shufflenet_v2_x1_0", "convnet4", "convnet6"}
EXACT = {
    torch.float32: 1e-5,
    torch.bfloat16: 6e-2,
}  # bf16 keeps 8 bits; what is rounded up to a ceiling has no gradient


def taught(name: str, resolution: int = 32) -> nn.Module:
    """A frozen network whose norms have learnt something."""
    model = build(name, num_classes=4, resolution=resolution, seed=0)
    for layer in batch_norms(model):
        assert layer.running_mean is not None and layer.running_var is not None
        layer.running_mean.copy_(drawn(layer.num_features) / 4)
        layer.running_var.copy_((drawn(layer.num_features, seed=1) / 2).exp())
    return frozen(model).to(memory_format=torch.channels_last)


def test_there_is_a_compiler_where_the_tests_run() -> None:
    assert native.norms() is not None


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("ceiling", [0.0, math.inf, 6.0])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (2, 24, 7, 9), (6, 64, 8, 8), (2, 58, 40, 40), (4, 130, 1, 1)])
def test_a_fused_norm_gives_values_statistics_and_gradients_of_its_layers(
    shape: tuple[int, ...], added: bool, ceiling: float, dtype: torch.dtype
) -> None:
    layer, features = norm(shape[1]), maps(*shape, dtype=dtype)
    skip = maps(*shape, dtype=dtype, seed=7) if added else None
    fast = FusedNorm.of(layer, ceiling)
    found = outcome(fast, features, skip, blocks=2)
    slow = [values.detach().float().requires_grad_() for values in (features, skip) if values is not None]
    expected = outcome(Apart.of(layer, ceiling), slow[0], slow[1] if added else None, blocks=2)
    for one, other in zip(found, expected, strict=True):
        assert distance(one, other) < EXACT[dtype]


@pytest.mark.parametrize("far", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("std", [1e-3, 1.0, 100.0])
def test_a_variance_is_that_of_double_precision_up_to_a_thousand_deviations_from_what_is_remembered(
    far: float, std: float
) -> None:
    features = ((maps(3, 40, 33, 33).detach() + far) * std).contiguous(memory_format=torch.channels_last)
    mean, var = told_of(FusedNorm.of(norm(40), 0.0), features)
    torch.testing.assert_close(mean, features.double().mean((0, 2, 3)).float(), rtol=1e-6, atol=1e-6 * std)
    torch.testing.assert_close(var, features.double().var((0, 2, 3), unbiased=False).float(), rtol=1e-4, atol=0)


def test_the_first_values_may_be_the_odd_ones() -> None:
    features = maps(3, 40, 33, 33).detach()
    features[0, :, 0] = 1000.0
    _, var = told_of(FusedNorm.of(norm(40), 0.0), features)
    torch.testing.assert_close(var, features.double().var((0, 2, 3), unbiased=False).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", EXACT)
def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    features = maps(2, 16, 4, 4, dtype=dtype).detach()
    features[0, 3] = torch.nan
    seen = FusedNorm.of(norm(16), math.inf)(features)
    assert seen[0, 3].isnan().all() and not seen[:, :3].isnan().any()


@pytest.mark.parametrize("dtype", EXACT)
def test_a_parameter_that_is_no_number_is_seen_whatever_its_bits(dtype: torch.dtype) -> None:
    layer = norm(16)
    layer.bias.view(torch.int32)[3] = 0x7FFFFFFF
    seen = FusedNorm.of(layer, 0.0)(maps(2, 16, 4, 4, dtype=dtype).detach())
    assert seen[:, 3].isnan().all() and not seen[:, :3].isnan().any()


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7])
def test_the_variance_of_what_is_no_finite_number_is_none(dtype: torch.dtype, odd: float, place: int) -> None:
    features = maps(8, 16, 4, 4, dtype=dtype).detach()
    features[place, 3, 0, 0] = odd
    mean, var = told_of(FusedNorm.of(norm(16), math.inf), features)
    assert str(float(mean[3])) == str(odd) and var[3].isnan()
    assert mean[:3].isfinite().all() and var[:3].isfinite().all()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bytes_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    before = torch.get_num_threads()
    found = outcome(FusedNorm.of(norm(24), math.inf), maps(8, 24, 40, 40), None, blocks=2)
    torch.set_num_threads(threads)
    try:
        again = outcome(FusedNorm.of(norm(24), math.inf), maps(8, 24, 40, 40), None, blocks=2)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize("name", sorted(SMALL.keys() - DEEPER))
def test_a_fused_network_sees_what_the_network_sees(name: str) -> None:
    model = taught(name)
    fast = fused(model)
    assert fast is not model or not batch_norms(model)
    assert order(fast) == order(model)
    images = drawn(4, 3, 32, 32)
    for found, expected in zip(seen_by(fast, images), seen_by(model, images), strict=True):
        assert distance(found, expected) < 1e-3  # a rectifier may cut a value that is all but 0 the other way


def order(model: nn.Module) -> list[str]:
    """Of what is listened to: distances come in the order of `modules()`."""
    listened = {*batch_norms(model), *convolutions(model)}
    return [name for name, layer in model.named_modules() if layer in listened]


def seen_by(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    images = images.contiguous(memory_format=torch.channels_last).clone().requires_grad_()
    with BatchNormStatistics(model, blocks=2) as statistics:
        logits = model(images)
    distances = statistics.distances()
    (gradient,) = torch.autograd.grad(logits.sum() + 0.01 * distances.sum(), images)
    return logits.detach(), distances.detach(), gradient


@pytest.mark.parametrize(
    ("name", "resolution", "norms", "rectified"),
    [("resnet18", 32, 20, 17), ("resnet18", 224, 20, 17), ("densenet121", 32, 120, 120), ("mobilenet_v2", 224, 52, 35)],
)
def test_norms_take_in_what_follows_them(name: str, resolution: int, norms: int, rectified: int) -> None:
    layers = [layer for layer in fused(taught(name, resolution)).modules() if isinstance(layer, FusedNorm)]
    assert (len(layers), sum(layer.ceiling > 0 for layer in layers)) == (norms, rectified)


def test_the_model_itself_is_left_as_it_is() -> None:
    model = taught("resnet18_w16")
    before = {name: type(layer) for name, layer in model.named_modules()}
    fast = fused(model)
    assert {name: type(layer) for name, layer in model.named_modules()} == before
    assert {id(value) for value in fast.parameters()} == {id(value) for value in model.parameters()}


def test_a_network_without_batch_norm_is_itself() -> None:
    model = taught("alexnet")
    assert fused(model) is model


class Odd(nn.Module):
    """Norms in places where less can be taken in: seen twice, added to itself, added to a number, behind no rectifier."""

    def __init__(self, way: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm, self.way = norm(8), way

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = self.way(self.norm, x)
        return seen


def seen_twice(out: Tensor) -> Tensor:
    return F.relu(out) + out


WAYS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "seen twice": lambda layer, x: seen_twice(layer(x)),
    "added to a number": lambda layer, x: F.relu(layer(x) + 1.0),
    "added to itself": lambda layer, x: F.relu(layer(x) + layer(x)),
    "a sum that is seen twice": lambda layer, x: seen_twice(layer(x) + x),
    "added to what is broadcast": lambda layer, x: F.relu(layer(x) + x.mean((2, 3), keepdim=True)),
    "added in another measure": lambda layer, x: F.relu(torch.add(layer(x), x, alpha=2)),
    "added in its own measure": lambda layer, x: F.relu(torch.add(x, layer(x), alpha=-1)),
    "another activation": lambda layer, x: F.silu(layer(x)),
    "a method": lambda layer, x: layer(x).relu(),
}


@pytest.mark.parametrize("way", WAYS)
def test_in_odd_places_a_network_still_sees_the_same(way: str) -> None:
    model = frozen(Odd(WAYS[way]))
    for found, expected in zip(
        seen_by(fused(model), drawn(4, 8, 6, 6)), seen_by(model, drawn(4, 8, 6, 6)), strict=True
    ):
        assert distance(found, expected) < 1e-5


class Backwards(nn.Module):
    """Calls its layers in another order than it names them."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = norm(8), norm(8)

    def forward(self, x: Tensor) -> Tensor:
        seen: Tensor = F.relu(self.last(F.relu(self.first(x))))
        return seen


def test_a_network_that_names_its_layers_in_another_order_is_itself() -> None:
    model = frozen(Backwards())
    assert fused(model) is model


@pytest.mark.parametrize("name", ["resnet", "shufflenet", "densenet", "mobilenet"])
def test_every_layers_distance_is_the_authors(name: str) -> None:
    stored = golden.stored("bn_loss")
    model = fused(golden.teacher(name))
    with BatchNormStatistics(model) as statistics:
        model(stored["images"].contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(statistics.distances()[0], stored[f"{name}.r_feature"], atol=1e-5, rtol=0)


def test_without_a_compiler_torch_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = fused(taught("resnet18_w16")), drawn(4, 3, 32, 32)
    fast = seen_by(model, images)
    monkeypatch.setattr(native, "norms", lambda: None)
    for found, expected in zip(seen_by(model, images), fast, strict=True):
        assert distance(found, expected) < 1e-4


def test_maps_that_lie_otherwise_are_left_to_torch() -> None:
    layer, features = FusedNorm.of(norm(8), math.inf), drawn(2, 8, 4, 4)
    told: list[tuple[Tensor, Tensor]] = []
    layer.hear = told.append
    assert torch.equal(layer(features), F.relu(norm(8)(features)))
    torch.testing.assert_close(told, [channel_moments(features)])
