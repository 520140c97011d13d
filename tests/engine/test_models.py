"""The networks: the authors' forms by their counts, and one door to build them."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine.models import SMALL, build, frozen
from engine.networks import NETWORKS
from engine.shapes import from_official
from tests.engine import golden

# Batch norms, and parameters in thousands at 10, 100 and 200 classes, as counted in the authors' code.
OFFICIAL = {
    "resnet18": (20, 11_174, 11_220, 11_271),
    "resnet50": (53, 23_521, 23_705, 23_910),
    "resnet101": (104, 42_513, 42_697, 42_902),
    "densenet121": (120, 6_956, 7_049, 7_151),
    "mobilenet_v2": (57, 2_297, 2_412, 2_540),
    "shufflenet_v2_x0_5": (56, 352, 444, 547),
}
# The same of torchvision's own networks, whose blocks are ours, and parameters as it publishes them for 1,000 classes.
TORCHVISION = {
    "resnet18": (20, 11_689_512),
    "resnet50": (53, 25_557_032),
    "resnet101": (104, 44_549_160),
    "wide_resnet50_2": (53, 68_883_240),
    "densenet121": (121, 7_978_856),
    "densenet169": (169, 14_149_480),
    "densenet201": (201, 20_013_928),
    "mobilenet_v2": (52, 3_504_872),
    "shufflenet_v2_x0_5": (56, 1_366_792),
    "shufflenet_v2_x1_0": (56, 2_278_604),
    "efficientnet_b0": (49, 5_288_548),
    "swin_t": (0, 28_288_354),
    "alexnet": (0, 61_100_840),
}
STEM = {  # parameters that a stem for large images has more than ours, 1,000 classes; batch norms
    **dict.fromkeys(("resnet18", "resnet50", "resnet101", "wide_resnet50_2"), (64 * 3 * (49 - 9), 0)),
    **dict.fromkeys(("densenet121", "densenet169", "densenet201"), (64 * 3 * (49 - 9) + 2 * 64, 1)),
    "efficientnet_b0": (0, 0),
    "shufflenet_v2_x0_5": (0, 0),
    "shufflenet_v2_x1_0": (0, 0),
    # patches of 2 and not 4 px; twelve tables of 7 x 7 and not 13 x 13 offsets
    "swin_t": (96 * 3 * (16 - 4) + (169 - 49) * 2 * (3 + 6 + 3 * 12 + 24), 0),
}


def counts(model: nn.Module) -> tuple[int, int]:
    """Batch norms, parameters."""
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    return norms, sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize("name", OFFICIAL)
def test_small_forms_have_the_authors_counts(name: str) -> None:
    norms, *thousands = OFFICIAL[name]
    with torch.device("meta"):
        found = [counts(build(name, num_classes=classes, resolution=32)) for classes in (10, 100, 200)]
    assert [(norms, round(parameters / 1000)) for norms, parameters in found] == [(norms, count) for count in thousands]


@pytest.mark.parametrize("name", TORCHVISION)
def test_large_forms_have_torchvisions_published_counts(name: str) -> None:
    with torch.device("meta"):
        assert counts(build(name, num_classes=1000, resolution=224)) == TORCHVISION[name]


@pytest.mark.parametrize("name", STEM)
def test_small_forms_differ_from_torchvisions_in_the_stem_alone(name: str) -> None:
    with torch.device("meta"):
        norms, parameters = counts(build(name, num_classes=1000, resolution=32))
    fewer, fewer_norms = STEM[name]
    assert (norms + fewer_norms, parameters + fewer) == TORCHVISION[name]


@pytest.mark.parametrize(("depth", "resolution"), [(3, 32), (4, 64), (5, 128), (6, 224)])
def test_a_convnet_has_a_layer_and_a_batch_norm_for_each_halving(depth: int, resolution: int) -> None:
    with torch.device("meta"):
        model = build(f"convnet{depth}", num_classes=10, resolution=resolution).eval()
        assert model(torch.empty(1, 3, resolution, resolution)).shape == (1, 10)
    layer = 9 * 128 * 128 + 3 * 128  # a convolution with bias, a batch norm
    assert counts(model) == (depth, 9 * 3 * 128 + 3 * 128 + (depth - 1) * layer + 129 * 10)


def test_the_small_alexnet_is_dcs_but_for_the_averaged_head() -> None:
    with torch.device("meta"):
        model = build("alexnet", num_classes=10, resolution=32)
    shapes = [tuple(part.weight.shape) for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert [shape[0] for shape in shapes] == [128, 192, 256, 192, 192, 10]
    assert [shape[2:] for shape in shapes] == [(5, 5), (5, 5), (3, 3), (3, 3), (3, 3), ()]


@pytest.mark.parametrize("side", [32, 24, 20])
def test_the_small_swin_computes_what_torchvisions_does(side: int) -> None:
    theirs = torchvision.models.SwinTransformer([2, 2], 96, [2, 2, 6, 2], [3, 6, 12, 24], [4, 4], num_classes=10)
    ours = build("swin_t", num_classes=10, resolution=32)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-5, rtol=0)


def test_the_small_efficientnet_computes_what_torchvisions_does_with_a_stem_of_stride_one() -> None:
    theirs, ours = (
        torchvision.models.efficientnet_b0(num_classes=10),
        build("efficientnet_b0", num_classes=10, resolution=32),
    )
    theirs.features[0][0].stride = (1, 1)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-5, rtol=0)


def test_the_small_wide_resnet_computes_what_torchvisions_does_without_its_pooling() -> None:
    theirs, ours = (
        torchvision.models.wide_resnet50_2(num_classes=10),
        build("wide_resnet50_2", num_classes=10, resolution=32),
    )
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    ours.load_state_dict(from_official(theirs.state_dict(), ours.state_dict()))
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet", "shufflenet", "densenet", "mobilenet"])
def test_the_authors_weights_fit_and_give_their_logits(name: str) -> None:
    stored = golden.stored("bn_loss")
    logits = golden.teacher(name)(stored["images"])
    torch.testing.assert_close(logits, stored[f"{name}.logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_small_side_works(name: str) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=7, resolution=32).eval()
        for side in (8, 16, 24, 40, 64):
            if not NETWORKS[name].misfit(side):
                assert model(torch.empty(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_learns_from_the_smallest_images_that_it_takes(name: str) -> None:
    side = NETWORKS[name].smallest_px
    model = build(name, num_classes=2, resolution=side, seed=0)
    logits = model(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)))
    torch.autograd.backward(logits.square().mean())
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


def test_every_network_is_built_in_the_forms_that_it_is_said_to_have() -> None:
    assert SMALL.keys() == NETWORKS.keys()
    large = [network for network in NETWORKS.values() if not network.small_only]
    assert TORCHVISION.keys() == {network.name for network in large if network.torchvision}


def test_eight_pixels_are_enough_for_the_demo_network() -> None:
    assert build("convnet3_w32", num_classes=10, resolution=8)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", TORCHVISION)
def test_from_128_px_networks_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build(name, num_classes=5, resolution=128), torchvision.models.get_model(name, num_classes=5)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


def test_a_seed_decides_the_weights_and_leaves_torchs_stream_alone() -> None:
    before = torch.get_rng_state()
    first, second = (build("convnet3_w32", num_classes=10, resolution=16, seed=3) for _ in range(2))
    other = build("convnet3_w32", num_classes=10, resolution=16, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_torchvisions_and_parallel_names_become_ours() -> None:
    ours = build("resnet18", num_classes=10, resolution=32, seed=0).state_dict()
    theirs: dict[str, Tensor] = {
        "module." + key.replace("shortcut", "downsample").replace("linear", "fc"): value for key, value in ours.items()
    }
    assert from_official(theirs, ours).keys() == ours.keys()
    assert from_official(ours, ours).keys() == ours.keys()


def test_our_names_become_torchvisions_where_the_network_is_torchvisions() -> None:
    with torch.device("meta"):
        theirs = build("resnet18", num_classes=10, resolution=224).state_dict()
    ours = {key.replace("downsample", "shortcut").replace("fc", "linear"): value for key, value in theirs.items()}
    assert from_official(ours, theirs).keys() == theirs.keys()


def test_the_names_in_torchvisions_densenet_files_become_todays() -> None:
    with torch.device("meta"):
        today = build("densenet121", num_classes=10, resolution=224).state_dict()
    filed = {re.sub(r"(denselayer\d+\.)(norm|conv)(\d)", r"\1\2.\3", key): value for key, value in today.items()}
    assert filed.keys() != today.keys()
    assert from_official(filed, today).keys() == today.keys()


def test_a_frozen_network_is_in_eval_mode_and_wants_no_gradient() -> None:
    model = frozen(build("convnet3_w32", num_classes=10, resolution=16))
    assert not any(part.training for part in model.modules())
    assert not any(value.requires_grad for value in model.parameters())


def test_an_unknown_network_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'vgg' is no network .* resnet18"):
        build("vgg", num_classes=10, resolution=32)


def test_a_small_only_network_is_refused_at_224_px() -> None:
    with pytest.raises(ValueError, match="below 128 px only"):
        build("convnet4", num_classes=10, resolution=224)
