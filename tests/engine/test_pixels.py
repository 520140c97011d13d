"""Between bytes and normalised images: the authors' conversions, and ours where theirs darken."""

from __future__ import annotations

import pytest
import torch

from engine.pixels import Rounding, denormalised, limits, normalised, resized, to_pixels
from tests.engine.golden import CIFAR10, IMAGENET, stored


@pytest.mark.parametrize(
    ("source", "result", "size", "tolerance"),
    [
        ("c32.normalised", "c32.interp_32_to_24", 24, 1e-5),
        ("c32.normalised", "c32.cv2_32_to_24", 24, 1e-5),
        ("c32.cv2_32_to_24", "c32.interp_24_to_32", 32, 1e-5),
        ("i224", "i224.interp_224_to_200", 200, 1e-4),
        ("i224", "i224.cv2_224_to_200", 200, 1e-4),
        ("i224.cv2_224_to_200", "i224.interp_200_to_224", 224, 1e-4),
    ],
)
def test_resolution_changes_as_in_the_authors_code(source: str, result: str, size: int, tolerance: float) -> None:
    tensors = stored("resize")
    images = normalised(tensors["i224.u8"], IMAGENET) if source == "i224" else tensors[source]
    torch.testing.assert_close(resized(images, size), tensors[result], atol=tolerance, rtol=0)


def test_the_same_resolution_changes_nothing() -> None:
    images = stored("resize")["c32.normalised"]
    assert resized(images, 32) is images


def test_pixels_are_normalised_as_in_the_authors_code() -> None:
    tensors = stored("resize")
    torch.testing.assert_close(normalised(tensors["c32.u8"], CIFAR10), tensors["c32.normalised"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["cifar10", "imagenet"])
def test_black_and_white_are_the_authors_limits(name: str) -> None:
    low, high = limits(CIFAR10 if name == "cifar10" else IMAGENET, torch.device("cpu"))
    expected = stored("resize")[f"clip.low_high_{name}"].float()
    torch.testing.assert_close(torch.stack([low, high])[..., 0, 0], expected, atol=1e-6, rtol=0)


def test_clipping_and_denormalising_are_the_authors() -> None:
    tensors = stored("resize")
    low, high = limits(CIFAR10, torch.device("cpu"))
    torch.testing.assert_close(tensors["c32.noisy"].clamp(low, high), tensors["c32.noisy_clipped"], atol=1e-6, rtol=0)
    unit = denormalised(tensors["c32.noisy"], CIFAR10)
    torch.testing.assert_close(unit, tensors["c32.noisy_denormalised"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rounding", "name"), [("floor", "c32.noisy_u8_floor"), ("nearest", "c32.noisy_u8_round")])
def test_either_way_of_rounding_is_exact(rounding: Rounding, name: str) -> None:
    tensors = stored("resize")
    assert torch.equal(to_pixels(tensors["c32.noisy_denormalised"], rounding=rounding), tensors[name])


def test_rounding_to_the_nearest_level_loses_nothing_and_flooring_darkens() -> None:
    tensors = stored("resize")
    unit = denormalised(tensors["c32.normalised"], CIFAR10)
    assert torch.equal(to_pixels(unit), tensors["c32.u8"])
    assert torch.equal(to_pixels(unit, rounding="floor"), tensors["c32.roundtrip_u8_floor"])
    assert (to_pixels(unit, rounding="floor") < tensors["c32.u8"]).float().mean() > 0.05
