"""Herding: against trying everything, and its first choices."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.herding import features, herd
from engine.models import build, frozen


def _features(count: int = 12) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(0))


def _slowly(found: Tensor, count: int) -> list[int]:
    """iCaRL, algorithm 4: each time the image that brings the mean of those chosen nearest to the mean of all."""
    chosen: list[int] = []
    for _ in range(count):
        free = [index for index in range(len(found)) if index not in chosen]
        gaps = {index: (found[[*chosen, index]].mean(0) - found.mean(0)).norm().item() for index in free}
        chosen.append(min(gaps, key=lambda index: gaps[index]))
    return chosen


def test_each_choice_is_the_best_there_is() -> None:
    found = _features()
    assert herd(found, 12).tolist() == _slowly(found.double(), 12)


def test_the_first_is_nearest_to_the_mean() -> None:
    assert herd(torch.tensor([[0.0], [10.0], [4.0], [2.0]]), 1).tolist() == [2]


def test_fewer_are_the_first_of_more() -> None:
    assert torch.equal(herd(_features(), 3), herd(_features(), 9)[:3])


def test_features_are_what_the_last_linear_layer_is_given() -> None:
    model = frozen(build("convnet3_w32", num_classes=4, resolution=16, seed=0))
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    last = model.get_submodule("linear")
    torch.testing.assert_close(last(features(model, images)), model(images))
    assert not last._forward_pre_hooks
