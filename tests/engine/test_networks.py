"""The facts that planning relies on, held to the networks themselves."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.models import build
from engine.networks import LARGE_PX, NETWORKS, SMALL_PX, forward_flop

LARGE = [name for name, network in NETWORKS.items() if not network.small_only]


def counted_flop(name: str, resolution: int) -> int:
    """Operations of one forward pass, shapes only."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(name, num_classes=10, resolution=resolution).eval()(torch.empty(1, 3, resolution, resolution))
    total: int = counter.get_total_flops()
    return total


@pytest.mark.parametrize("name", NETWORKS)
def test_the_small_form_costs_what_is_said(name: str) -> None:
    side = max(SMALL_PX, NETWORKS[name].smallest_px)
    assert forward_flop(name, side) == pytest.approx(counted_flop(name, side), rel=1e-3)


@pytest.mark.parametrize("name", LARGE)
def test_the_large_form_costs_what_is_said(name: str) -> None:
    assert forward_flop(name, LARGE_PX) == pytest.approx(counted_flop(name, LARGE_PX), rel=1e-3)


@pytest.mark.parametrize(("name", "resolution"), [("resnet18", 64), ("densenet121", 200), ("shufflenet_v2_x0_5", 48)])
def test_cost_grows_with_the_pixels(name: str, resolution: int) -> None:
    assert forward_flop(name, resolution) == pytest.approx(counted_flop(name, resolution), rel=0.03)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_and_batch_norm_are_as_said(name: str) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=10, resolution=SMALL_PX)
    millions = sum(value.numel() for value in model.parameters()) / 1e6
    assert NETWORKS[name].parameters_m == pytest.approx(millions, rel=1e-3)
    assert NETWORKS[name].batch_norm == any(isinstance(part, nn.BatchNorm2d) for part in model.modules())


def test_a_network_is_listed_under_its_own_name() -> None:
    assert all(name == network.name for name, network in NETWORKS.items())


def test_a_small_only_network_has_no_cost_at_224_px() -> None:
    with pytest.raises(ValueError, match="below 128 px only"):
        forward_flop("convnet3", 224)
