"""The passes of norms.c by torch's own kernels, one after another: for GPUs on which Triton does not run.

Autograd over the same kernels would keep what comes out beside what enters, and gets the gradient of a frozen batch norm
in another order of values than the map's, which every convolution behind then copies back.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.moments import channel_moments, gradient_of_moments, straight

if TYPE_CHECKING:
    from engine.passes import Line, Told


def forward(line: Line, *, y: Tensor, skip: Tensor | None, z: Tensor, moments: Tensor | None) -> None:
    """See `engine.passes.Way`."""
    if moments is not None:
        torch.stack(channel_moments(y, blocks=line.blocks), out=moments)
    straight(y, line.mean, line.scale, line.shift, out=z)
    if skip is not None:
        z.add_(skip)
    if line.ceiling:
        z.clamp_(0, line.ceiling)


def backward(
    line: Line,
    *,
    y: Tensor,
    z: Tensor | None,
    by_z: Tensor,
    told: Told | None,
    to_y: Tensor,
    to_skip: Tensor | None,
) -> None:
    """See `engine.passes.Way`."""
    through = by_z
    if line.ceiling:
        through = torch.empty_like(by_z) if to_skip is None else to_skip
        value = straight(y, line.mean, line.scale, line.shift) if z is None else z
        if line.ceiling == math.inf:
            torch.ops.aten.threshold_backward(by_z, value, 0, grad_input=through)
        else:
            torch.ops.aten.hardtanh_backward(by_z, value, 0, line.ceiling, grad_input=through)
    torch.mul(through, line.scale[:, None, None], out=to_y)
    if told is not None:
        to_y.add_(gradient_of_moments(y, told.moments[0], told.by_mean, told.by_var))
