"""The networks: the authors' forms by their counts (recipe.md, section 3), and one door to build them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from engine.models import build, from_official, frozen
from engine.networks import NETWORKS
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


@pytest.mark.parametrize("name", OFFICIAL)
def test_small_forms_have_the_authors_counts(name: str) -> None:
    norms, *thousands = OFFICIAL[name]
    with torch.device("meta"):
        models = [build(name, num_classes=classes, resolution=32) for classes in (10, 100, 200)]
    assert [round(sum(value.numel() for value in model.parameters()) / 1000) for model in models] == thousands
    assert sum(isinstance(part, nn.BatchNorm2d) for part in models[0].modules()) == norms


@pytest.mark.parametrize("name", ["resnet", "shufflenet", "densenet", "mobilenet"])
def test_the_authors_weights_fit_and_give_their_logits(name: str) -> None:
    stored = golden.stored("bn_loss")
    logits = golden.teacher(name)(stored["images"])
    torch.testing.assert_close(logits, stored[f"{name}.logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_small_side_works(name: str) -> None:
    with torch.device("meta"):
        model = build(name, num_classes=7, resolution=32).eval()
        for side in (16, 24, 40, 64):
            assert model(torch.empty(2, 3, side, side)).shape == (2, 7)


def test_eight_pixels_are_enough_for_the_demo_network() -> None:
    assert build("convnet3_w32", num_classes=10, resolution=8)(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if not network.small_only])
def test_from_128_px_networks_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = build(name, num_classes=5, resolution=128), torchvision.models.get_model(name, num_classes=5)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }


@pytest.mark.parametrize("resolution", [32, 224])
def test_images_may_have_another_number_of_channels(resolution: int) -> None:
    with torch.device("meta"):
        model = build("densenet121", num_classes=5, resolution=resolution, channels=1).eval()
        assert model(torch.empty(1, 1, resolution, resolution)).shape == (1, 5)


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
    assert from_official(theirs).keys() == ours.keys()
    assert from_official(ours).keys() == ours.keys()


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
