"""Norms that have learnt something, maps for them, and what comes of these, for tests of every way to compute it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.fused import FusedNorm


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def maps(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return drawn(*shape, seed=seed).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()


def norm(channels: int) -> nn.BatchNorm2d:
    """A frozen norm that has learnt something."""
    layer = nn.BatchNorm2d(channels).eval().requires_grad_(False)
    layer.weight.copy_(drawn(channels, seed=1))
    layer.bias.copy_(drawn(channels, seed=2))
    layer.running_mean, layer.running_var = drawn(channels, seed=3), drawn(channels, seed=4).exp()
    return layer


class Apart(FusedNorm):
    """As torch has it: layer after layer."""

    def forward(self, features: Tensor, skip: Tensor | None = None) -> Tensor:
        return self._by_torch(features, skip)


def distance(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm."""
    gap = (found.detach().double() - expected.detach().double()).norm()
    return float(gap / expected.detach().double().norm().clamp(min=1e-30))


def outcome(model: FusedNorm, features: Tensor, skip: Tensor | None, *, blocks: int) -> list[Tensor]:
    told: list[tuple[Tensor, Tensor]] = []
    model.blocks, model.hear = blocks, told.append
    seen = model(features, skip)
    [(mean, var)] = told
    weights = [drawn(*values.shape, seed=9).to(values) for values in (seen, mean, var)]
    given = [features] if skip is None else [features, skip]
    parts = zip((seen, mean, var), weights, strict=True)
    total = torch.stack([(values * weight).float().sum() for values, weight in parts]).sum()
    return [seen.detach(), mean.detach(), var.detach(), *torch.autograd.grad(total, given)]


def told_of(layer: FusedNorm, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) that are heard of one block."""
    told: list[tuple[Tensor, Tensor]] = []
    layer.hear = told.append
    layer(features)
    [(mean, var)] = told
    return mean[0], var[0]
