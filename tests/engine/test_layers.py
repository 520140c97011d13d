"""Convolutions that take another way on a CPU come to the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.layers import Exact, SideBySide, suited_to_cpu
from engine.precision import Precision, computing
from tests.engine.jobs import CPU


def maps(*shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return drawn.contiguous(memory_format=torch.channels_last)


def both(convolution: nn.Conv2d) -> tuple[nn.Conv2d, SideBySide]:
    wide = copy.deepcopy(convolution)
    wide.__class__ = SideBySide
    assert isinstance(wide, SideBySide)
    return convolution, wide


def outcome(layer: nn.Conv2d, images: Tensor, precision: Precision) -> list[Tensor]:
    images = images.clone().requires_grad_()
    with computing(precision, CPU):
        seen: Tensor = layer(images)
    weight = torch.randn(seen.shape, generator=torch.Generator().manual_seed(1))
    return [seen.detach().float(), *torch.autograd.grad((seen * weight).sum(), [images, *layer.parameters()])]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("shape", [(5, 16, 4, 4), (3, 16, 8, 8), (4, 8, 7, 5), (2, 8, 3, 1), (6, 8, 14, 13)])
def test_maps_side_by_side_give_what_each_gives_alone(shape: tuple[int, ...], kernel: int, stride: int) -> None:
    plain, wide = both(nn.Conv2d(shape[1], 12, kernel, stride, kernel // 2))
    for found, expected in zip(outcome(wide, maps(*shape), "bf16"), outcome(plain, maps(*shape), "fp32"), strict=True):
        assert float((found - expected).norm() / expected.norm()) < 1e-2


def test_exact_numbers_and_wide_maps_are_left_to_torch() -> None:
    plain, wide = both(nn.Conv2d(8, 8, 3, padding=1))
    narrow, broad = maps(4, 8, 4, 4), maps(4, 8, 16, 16)
    assert torch.equal(wide(narrow), plain(narrow))
    with computing("bf16", CPU):
        assert torch.equal(wide(broad), plain(broad)) and not wide._pays(broad) and wide._pays(narrow)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(4, 8, 3, padding=1), SideBySide),
        (nn.Conv2d(4, 8, 3, stride=2, padding=1), SideBySide),
        (nn.Conv2d(4, 8, 1), nn.Conv2d),
        (nn.Conv2d(4, 8, 3), nn.Conv2d),
        (nn.Conv2d(4, 8, 3, padding="same"), nn.Conv2d),
        (nn.Conv2d(4, 8, (3, 1), padding=(1, 0)), nn.Conv2d),
        (nn.Conv2d(4, 8, 3, padding=2, dilation=2), nn.Conv2d),
        (nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d),
        (nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8), Exact),
        (nn.Linear(4, 8), nn.Linear),
    ],
)
def test_a_layer_takes_another_way_where_it_pays(layer: nn.Module, expected: type[nn.Module]) -> None:
    assert suited_to_cpu(layer, matrix_units=True) is expected
    if expected is SideBySide:
        assert suited_to_cpu(layer, matrix_units=False) is nn.Conv2d
