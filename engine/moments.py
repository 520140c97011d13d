"""Mean and variance of maps, with a gradient that costs one pass.

G blocks, each with statistics of its own; N images of them all, block after block; C channels, H W pixels.
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 8192  # pixels that one sum runs over on a CPU, which adds them one by one in fp32
Moments = tuple[Tensor, Tensor]  # mean and biased variance


def image_moments(features: Tensor) -> Moments:
    """(N, C, H, W) in any precision -> mean and biased variance over the pixels of each image, (N, C) fp32 each."""
    if features.device.type == "cuda":  # without a copy in fp32 that autograd keeps
        return channel_moments(features, blocks=len(features))
    features = features.float()
    mean = features.mean((2, 3))
    return mean, (features - mean[:, :, None, None]).square().mean((2, 3))


def channel_moments(features: Tensor, *, blocks: int = 1) -> Moments:
    """(N, C, H, W) in any precision -> mean and biased variance of each block's channels, (G, C) fp32 each.

    torch.var_mean gives the same numbers, but takes 30 times as long on a CPU, and its gradient four passes over the
    features instead of one.
    """
    mean, var = _ChannelMoments.apply(features, blocks)
    return mean, var


class _ChannelMoments(torch.autograd.Function):
    """`channel_moments`, and a gradient in the type of the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, blocks: int) -> Moments:
        if features.device.type == "cpu":
            mean, var = _moments_in_parts(features, blocks)
        elif blocks == 1 and _is_dense(features):
            mean, var = (values[None] for values in torch.batch_norm_update_stats(features, None, None, 0.0))
        else:
            mean, var = moments_at_once(features, blocks)
        ctx.save_for_backward(features, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        features, mean = ctx.saved_tensors
        return gradient_of_moments(features, mean, *grads), None


def gradient_of_moments(features: Tensor, mean: Tensor, by_mean: Tensor, by_var: Tensor) -> Tensor:
    """The gradient by (N, C, H, W) features of which mean and variance, (G, C), have these: in the type of the features."""
    height, by_var = (grad * mean.numel() / features.numel() for grad in (by_mean, by_var))
    slope = 2 * by_var
    if features.device.type == "cpu" or len(mean) == 1:
        given = zip(features.chunk(len(mean)), mean, slope, height, strict=True)
        parts = [straight(*one) for one in given]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
    return lines_at_once(features, slope, height - slope * mean)


def _is_dense(features: Tensor) -> bool:
    """Whether the values lie one behind the other in either order: others would be copied in fp32 first."""
    return features.is_contiguous() or features.is_contiguous(memory_format=torch.channels_last)


def _moments_in_parts(features: Tensor, blocks: int) -> Moments:
    """As `channel_moments`, on a CPU: in parts of about ROWS pixels, for the sake of exactness."""
    images, size = len(features) // blocks, max(1, ROWS // features[0, 0].numel())
    sizes = [min(size, images - start) for start in range(0, images, size)]
    ignored = torch.ones(2, features.shape[1])  # running statistics; their presence makes it answer in fp32
    parts = torch.split(features, sizes * blocks)
    moments = [torch.batch_norm_update_stats(part, ignored[0], ignored[1], 0.0) for part in parts]
    means, variances = (torch.stack(column).view(blocks, len(sizes), -1) for column in zip(*moments, strict=True))
    if len(sizes) == 1:
        return means[:, 0], variances[:, 0]
    share = torch.tensor(sizes)[:, None] / images
    mean = (share * means).sum(1, keepdim=True)
    return mean[:, 0], (share * (variances + (means - mean).square())).sum(1)


def straight(features: Tensor, mean: Tensor, slope: Tensor, height: Tensor, *, out: Tensor | None = None) -> Tensor:
    """slope * (features - mean) + height, (C,) each, as batch norm computes it: one pass, fp32 inside, any type outside."""
    line = features, slope, height, mean, torch.ones_like(mean), False, 0.0, 0.0
    if out is None:
        return torch.native_batch_norm(*line)[0]
    unused = mean.new_empty(2, 0)
    return torch.native_batch_norm(*line, out=(out, unused[0], unused[1]))[0]


def moments_at_once(features: Tensor, blocks: int) -> Moments:
    """As `channel_moments`, without a launch for each block, in fp32 and without a copy of the features in it."""
    grouped, count = torch.unflatten(features, 0, (blocks, -1)), features.numel() // features.shape[1] // blocks
    mean = grouped.sum((1, 3, 4), dtype=torch.float32) / count
    # Around the mean, as squares of large numbers would leave nothing of a small variance; `out` keeps it in fp32.
    return mean, torch.var(grouped, (1, 3, 4), correction=0, out=torch.empty_like(mean))


def lines_at_once(features: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """slope * features + height, (G, C) each, in the type of the features, without a launch for each block."""
    grouped = torch.unflatten(features, 0, (len(slope), -1))
    slope, height = slope[:, None, :, None, None], height[:, None, :, None, None]
    return torch.addcmul(height, grouped, slope, out=torch.empty_like(grouped)).flatten(0, 1)
