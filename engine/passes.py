"""A frozen batch norm, and what stands around it, in one pass over a map: by norms.c on a CPU, by Triton on a GPU.

G blocks, N images of them all, block after block; C channels, H W pixels.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from engine import native, norms_cpu, norms_torch
from engine.moments import channel_moments

# How far a GPU's passes may be from torch's in fp32, on the same numbers: the norm of the difference over the norm.
HELD_TO = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
# (N, C, H, W), blocks, ceiling, and whether something is added: what a kernel is compiled for differs in each. Tiles that
# are not full in both ways; rows in whole vectors, as networks have them; more tiles than are brought together at once.
HELD_KINDS = (
    ((6, 72, 11, 13), 3, 0.0, False),
    ((6, 72, 11, 13), 3, math.inf, True),
    ((6, 72, 11, 13), 3, 6.0, False),
    ((6, 80, 11, 13), 3, math.inf, True),
    ((1, 64, 182, 182), 1, math.inf, False),
)

log = logging.getLogger(__name__)


class Line(NamedTuple):
    """What a norm does to C channels: (y - mean) * scale + shift, and the rectifier; none of it has a gradient."""

    mean: Tensor
    scale: Tensor
    shift: Tensor
    ceiling: float
    blocks: int
    told: bool  # of the statistics


class Told(NamedTuple):
    """Statistics that somebody listened to."""

    moments: Tensor  # (2, G, C) fp32
    by_mean: Tensor  # (G, C), the gradients by them
    by_var: Tensor


class Way(Protocol):
    """How a pass is made. Maps lie as `way` wants them; what is to be written is there, and unwritten."""

    def forward(self, line: Line, *, y: Tensor, skip: Tensor | None, z: Tensor, moments: Tensor | None) -> None:
        """moments: (2, G, C) fp32, mean and biased variance of y; None where nobody asks."""

    def backward(
        self,
        line: Line,
        *,
        y: Tensor,
        z: Tensor | None,
        by_z: Tensor,
        told: Told | None,
        to_y: Tensor,
        to_skip: Tensor | None,
    ) -> None:
        """z and to_skip are there where something was added before a rectifier."""


class Pass(torch.autograd.Function):
    """(N, C, H, W), and what is added -> what comes out, mean and variance (G, C), by a way that is given."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, skip: Tensor | None, line: Line, way: Way) -> tuple[Tensor, Tensor, Tensor]:
        seen = torch.empty_like(features)
        moments = features.new_empty(2, line.blocks, len(line.mean), dtype=torch.float32)
        ctx.line, ctx.way, ctx.added = line, way, skip is not None
        way.forward(line, y=features, skip=skip, z=seen, moments=moments if line.told else None)
        # Where something was added, what came out tells where the rectifier let through; else what entered does.
        ctx.save_for_backward(features, moments, *([seen] if ctx.added and line.ceiling else []))
        return seen, moments[0], moments[1]

    @staticmethod
    def backward(
        ctx: Any, by_seen: Tensor, by_mean: Tensor, by_var: Tensor
    ) -> tuple[Tensor, Tensor | None, None, None]:
        features, moments, *seen = ctx.saved_tensors
        line: Line = ctx.line
        to_features, to_skip = torch.empty_like(features), torch.empty_like(features) if seen else None
        by_seen = by_seen.to(features.dtype).contiguous(memory_format=torch.channels_last)
        maps = {"y": features, "z": seen[0] if seen else None, "by_z": by_seen}
        told = Told(moments, by_mean, by_var) if line.told else None
        ctx.way.backward(line, **maps, told=told, to_y=to_features, to_skip=to_skip)
        by_skip = to_skip if seen else by_seen
        return to_features, by_skip if ctx.added else None, None, None


def way(maps: Sequence[Tensor]) -> Way | None:
    """What takes these maps, alike and channels last; None where torch does it, and autograd its gradient."""
    first = maps[0]
    if not all(
        (one.device, one.dtype, one.shape) == (first.device, first.dtype, first.shape)
        and one.is_contiguous(memory_format=torch.channels_last)
        and one.numel()
        for one in maps
    ):
        return None
    if first.device.type == "cuda" and first.dtype in HELD_TO:
        return on_gpu(first.device, first.dtype) or norms_torch
    return norms_cpu if first.dtype in norms_cpu.NAMES and native.norms() is not None else None


def known(device: torch.device) -> str:
    """What computes norms there, for a manifest: C, Triton or torch; of a GPU, what this process found so far."""
    if device.type == "cpu":
        return "torch" if native.norms() is None else "C"
    return "Triton" if any(found for (where, _), found in _found.items() if where == device) else "torch"


_found: dict[tuple[torch.device, torch.dtype], Way | None] = {}


def on_gpu(device: torch.device, dtype: torch.dtype) -> Way | None:
    """Triton's passes; None where they do not run or do not give what torch gives: the log says why. Asked once.

    Not while a graph is recorded, as it waits for the device: a step is done as it stands before it is recorded.
    """
    if (device, dtype) not in _found:
        _found[device, dtype] = _triton(device, dtype)
    return _found[device, dtype]


def _triton(device: torch.device, dtype: torch.dtype) -> Way | None:
    try:
        # What is in there is run: where nobody else can write, and where anything can be written.
        os.environ.setdefault("TRITON_CACHE_DIR", str(native.cache_folder() / "triton"))
        from engine import norms_gpu

        apart = distance_from_torch(norms_gpu, device, dtype)
    except Exception as error:  # noqa: BLE001 - whatever a compiler or a driver says, torch can do it
        log.warning("norms are computed by torch: %s", str(error).partition("\n")[0] or type(error).__name__)
        return None
    if not apart < HELD_TO[dtype]:
        log.warning("norms are computed by torch: Triton's are %.2g from them on %s in %s", apart, device, dtype)
        return None
    return norms_gpu


@torch.inference_mode(mode=False)
@torch.enable_grad()
def distance_from_torch(way: Way, device: torch.device, dtype: torch.dtype) -> float:
    """The largest of values, statistics and gradients of small maps: the norm of the difference over the norm."""
    numbers = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=numbers).to(device)

    worst = []
    for shape, blocks, ceiling, added in HELD_KINDS:
        mean, scale, shift = (drawn(shape[1]) for _ in range(3))
        line = Line(mean, 2 + scale, shift, ceiling, blocks, told=True)
        maps = [(1 + drawn(*shape)).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2)]
        given = [one.requires_grad_() for one in maps[: 1 + added]]
        exact = [one.detach().float().requires_grad_() for one in given]
        found = Pass.apply(given[0], given[1] if added else None, line, way)
        expected = _by_torch(exact, line)
        weights = [drawn(*one.shape).to(one.dtype) for one in found]
        pairs = zip(
            (*found, *torch.autograd.grad(found, given, weights)),
            (*expected, *torch.autograd.grad(expected, exact, [one.float() for one in weights])),
            strict=True,
        )
        worst += [((one.detach().float() - other).norm() / other.norm()).detach() for one, other in pairs]
    return float(torch.stack(worst).max())  # nan where any is


def _by_torch(maps: list[Tensor], line: Line) -> tuple[Tensor, Tensor, Tensor]:
    """What `Pass` gives, one after another."""
    mean, scale, shift = (values[:, None, None] for values in (line.mean, line.scale, line.shift))
    seen = (maps[0] - mean) * scale + shift
    seen = seen if len(maps) == 1 else seen + maps[1]
    return seen if line.ceiling == 0 else seen.clamp(0, line.ceiling), *channel_moments(maps[0], blocks=line.blocks)
