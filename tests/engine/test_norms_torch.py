"""Norms by torch's own kernels come to what autograd makes of the layers, and keep the order of the values."""

from __future__ import annotations

import math

import pytest
import torch

from engine import norms_torch, passes
from engine.fused import FusedNorm
from tests.engine.norms import Apart, distance, maps, norm, outcome
from tests.pretended_gpu import CUDA, pretended_gpu

KINDS = [(0.0, False), (math.inf, False), (math.inf, True), (6.0, False), (6.0, True), (0.0, True)]


@pytest.mark.parametrize(("ceiling", "added"), KINDS)
@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_statistics_and_gradients_are_those_of_the_layers(
    monkeypatch: pytest.MonkeyPatch, ceiling: float, added: bool, blocks: int, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(passes, "way", lambda _: norms_torch)
    features, skip = (maps(6, 10, 5, 4, dtype=dtype, seed=seed) for seed in (5, 6))
    layer = norm(10)
    found, expected = (
        outcome(kind.of(layer, ceiling), features, skip if added else None, blocks=blocks)
        for kind in (FusedNorm, Apart)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert distance(ours, theirs) < (1e-6 if dtype == torch.float32 else 1e-2)
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in found if one.dim() == 4)


def test_a_gpu_without_triton_takes_this_way() -> None:
    with pretended_gpu():
        features = torch.ones(2, 4, 3, 3, device=CUDA)
        assert passes.way([features.contiguous(memory_format=torch.channels_last)]) is norms_torch
        assert passes.way([features]) is None
