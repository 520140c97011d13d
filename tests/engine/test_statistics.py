"""What batch-norm layers see: the authors' numbers, the same numbers slowly, and no trace left on the teacher."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.moments import Moments, channel_moments, lines_at_once, moments_at_once
from engine.statistics import BatchNormStatistics
from tests.engine import golden

NETS = ("resnet", "shufflenet", "densenet", "mobilenet")


def features(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 1).to(dtype)


def distances_of(model: nn.Module, images: Tensor) -> Tensor:
    with BatchNormStatistics(model) as statistics:
        model(images)
    return statistics.distances()[0]


@pytest.mark.parametrize("name", NETS)
def test_every_layers_distance_is_the_authors(name: str) -> None:
    stored = golden.stored("bn_loss")
    distances = distances_of(golden.teacher(name), stored["images"])
    torch.testing.assert_close(distances, stored[f"{name}.r_feature"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_layers_are_in_the_order_of_modules(name: str) -> None:
    model = golden.network(name)
    names = [name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert names == json.loads(golden.metadata("bn_loss")["bn_layer_names"])[name]


def layer(mean: Tensor, var: Tensor) -> nn.Module:
    """One batch-norm layer that remembers these statistics."""
    norm = nn.BatchNorm2d(len(mean)).eval().requires_grad_(False)
    norm.running_mean, norm.running_var = mean, var
    return norm


def test_a_batch_with_the_teachers_own_statistics_costs_nothing() -> None:
    x = features(8, 3, 5, 5)
    model = layer(x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False))
    torch.testing.assert_close(distances_of(model, x), torch.zeros(1), atol=1e-5, rtol=0)


def test_distances_are_sums_of_two_norms() -> None:
    x = torch.zeros(2, 2, 4, 4)
    model = nn.Sequential(
        layer(torch.tensor([3.0, 4.0]), torch.ones(2)), layer(torch.zeros(2), torch.tensor([5.0, 12.0]))
    )
    model[0].register_forward_hook(lambda *_: x)
    torch.testing.assert_close(distances_of(model, x), torch.tensor([5 + 2**0.5, 13.0]))


def test_a_perfect_match_has_a_gradient() -> None:
    x = torch.zeros(2, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(distances_of(layer(torch.zeros(3), torch.zeros(3)), x).sum(), x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (20, 16, 32, 32), (3, 4, 112, 112), (1, 3, 2, 2)])
def test_one_pass_gives_what_two_passes_in_double_give(shape: tuple[int, ...]) -> None:
    x = features(*shape).contiguous(memory_format=torch.channels_last)
    mean, var = (values[0] for values in channel_moments(x))
    torch.testing.assert_close(mean, x.double().mean((0, 2, 3)).float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(var, x.double().var((0, 2, 3), unbiased=False).float(), atol=1e-5, rtol=1e-5)


def test_the_gradient_is_that_of_mean_and_variance() -> None:
    x = features(6, 4, 5, 5, dtype=torch.float64)
    slow, fast = x.clone().requires_grad_(), x.float().requires_grad_()
    goal_mean, goal_var = torch.zeros(4), torch.ones(4)
    mean, var = slow.mean((0, 2, 3)), slow.var((0, 2, 3), unbiased=False)
    (expected,) = torch.autograd.grad((var - goal_var).norm() + (mean - goal_mean).norm(), slow)
    (gradient,) = torch.autograd.grad(distances_of(layer(goal_mean, goal_var), fast).sum(), fast)
    torch.testing.assert_close(gradient.double(), expected, atol=1e-7, rtol=1e-5)


def test_statistics_are_fp32_whatever_the_features_are() -> None:
    x = features(4, 3, 8, 8, dtype=torch.bfloat16).requires_grad_()
    mean, var = (values[0] for values in channel_moments(x))
    (gradient,) = torch.autograd.grad(mean.sum() + var.sum(), x)
    assert mean.dtype == var.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    torch.testing.assert_close((mean[None], var[None]), channel_moments(x.detach().float()))


def test_each_forward_pass_has_its_own_distances() -> None:
    model = golden.teacher("resnet")
    first, second = features(2, 3, 16, 16), 2 * features(2, 3, 16, 16)
    statistics = BatchNormStatistics(model)
    told = []
    for images in (first, second, first):
        with statistics:
            model(images)
        told.append(statistics.distances())
    assert torch.equal(told[0], told[2]) and not torch.allclose(told[0], told[1])


def test_nothing_is_left_on_the_teacher() -> None:
    model, before = golden.teacher("resnet"), golden.teacher("resnet").state_dict()
    with pytest.raises(RuntimeError, match="from the test"), BatchNormStatistics(model):
        raise RuntimeError("from the test")
    distances_of(model, features(2, 3, 16, 16))
    assert not any(part._forward_pre_hooks for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_network_without_batch_norm_has_no_distances() -> None:
    assert distances_of(nn.Conv2d(3, 4, 3), features(2, 3, 8, 8)).shape == (0,)


def test_each_block_has_the_statistics_that_it_has_alone() -> None:
    x = features(6, 4, 5, 5)
    together, alone = channel_moments(x, blocks=3), [channel_moments(part) for part in x.chunk(3)]
    for values, parts in zip(together, zip(*alone, strict=True), strict=True):
        assert torch.equal(values, torch.cat(parts))


@pytest.mark.parametrize("far", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("moments", [moments_at_once, lambda x, blocks: channel_moments(x, blocks=blocks)])
def test_a_variance_is_that_of_double_precision_up_to_a_thousand_deviations_from_zero(
    moments: Callable[[Tensor, int], Moments], far: float
) -> None:
    x = torch.randn(8, 16, 32, 32, generator=torch.Generator().manual_seed(0)) + far
    mean, var = moments(x, 2)
    blocks = torch.unflatten(x.double(), 0, (2, -1))
    torch.testing.assert_close(mean, blocks.mean((1, 3, 4)).float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(var, blocks.var((1, 3, 4), unbiased=False).float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_without_a_launch_for_each_block_are_the_same(dtype: torch.dtype) -> None:
    x = features(6, 4, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    expected = channel_moments(x, blocks=3)
    torch.testing.assert_close(moments_at_once(x.detach(), 3), expected, atol=1e-5, rtol=1e-5)
    by_mean, by_var = features(3, 4), features(3, 4).exp()
    (gradient,) = torch.autograd.grad(expected, x, (by_mean, by_var))
    slope = 2 * by_var / 512  # values of a channel in a block: 2 images of 16 x 16 px
    lines = lines_at_once(x.detach(), slope, by_mean / 512 - slope * expected[0].detach())
    assert lines.dtype == dtype and lines.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(lines, gradient, atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 1e-2)
