"""What layers of a teacher see of a batch, beside what they are known to see of the real data.

G blocks, each with statistics of its own; N images of them all, block after block; C channels, H W pixels, L layers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

ROWS = 8192  # pixels that one sum runs over on a CPU, which adds them one by one in fp32
TINY = 1e-30  # below this a squared distance counts as none, so that its root has a gradient
Moments = tuple[Tensor, Tensor]  # mean and biased variance


class Listener:
    """Listens to what enters some layers while it is open, and leaves nothing behind when it closes.

    listener = Listener(batch_norms(model), image_moments)
    with listener:
        logits = model(images)
    moments = listener.heard()
    """

    def __init__(self, layers: Sequence[nn.Module], moments: Callable[[Tensor], Moments]) -> None:
        self._layers, self._moments_of = layers, moments
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._moments: dict[int, Moments] = {}

    def __enter__(self) -> Self:
        self._hooks = [
            layer.register_forward_pre_hook(self._listener(index)) for index, layer in enumerate(self._layers)
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def heard(self) -> list[Moments]:
        """Each layer's moments in the last forward pass, in the order of the layers.

        Forgets the pass, so that the memory of its features is free after the backward pass.
        """
        return [self._moments.pop(index) for index in range(len(self._layers))]

    def _listener(self, index: int) -> Callable[[nn.Module, Any], None]:
        def listen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._moments[index] = self._moments_of(inputs[0])

        return listen


def batch_norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Every batch-norm layer, in the order of `modules()`."""
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


def convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Every convolution, in the order of `modules()`."""
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]


class _ChannelListener(Listener):
    """Hears the statistics of each block's channels, and tells how far they are from others."""

    def __init__(self, layers: Sequence[nn.Module], widths: Sequence[int], blocks: int) -> None:
        """widths: C of each layer."""
        super().__init__(layers, partial(channel_moments, blocks=blocks))
        self._widths = torch.tensor([*widths, *widths])

    def _distances_to(self, real: Tensor) -> Tensor:
        """real: (2 * sum of C,) means of all layers, then their variances -> (G, L) sums of the norms of both."""
        moments = self.heard()
        gaps = real - torch.cat([mean for mean, _ in moments] + [var for _, var in moments], 1)
        self._widths = self._widths.to(gaps.device)
        squares = torch.segment_reduce(gaps.square().T.contiguous(), "sum", lengths=self._widths, unsafe=True)
        distances: Tensor = squares.clamp(min=TINY).sqrt().view(2, -1, len(gaps)).sum(0).T
        return distances


class BatchNormStatistics(_ChannelListener):
    """What every BatchNorm2d of a model sees, beside what it remembers."""

    def __init__(self, model: nn.Module, *, blocks: int = 1) -> None:
        self._norms, self._blocks = batch_norms(model), blocks
        super().__init__(self._norms, [layer.num_features for layer in self._norms], blocks)

    def distances(self) -> Tensor:
        """(G, L) fp32: each layer's distance in the last forward pass, in the order of `modules()`; (G, 0) without layers.

        Of a layer: ||mean - running mean|| + ||variance - running variance||. The norms are not squared and the batch
        variance is biased, as in the authors' code. Source: arXiv 2506.24125 eq. 52; FADRM utils_recover.py.
        """
        if not self._norms:
            return torch.zeros(self._blocks, 0)
        return self._distances_to(self._remembered())

    def _remembered(self) -> Tensor:
        means, variances = ([getattr(layer, name) for layer in self._norms] for name in ("running_mean", "running_var"))
        return torch.cat(means + variances)


class ConvStatistics(_ChannelListener):
    """What every Conv2d of a model sees, beside what it saw of the real images.

    What convolutions hand on is mostly what batch norm sees next, hence the matching of what enters them.
    Source: G-VBSM (arXiv 2311.17950) recover/utils.py, ConvFeatureHook, of which the channel statistics are taken.
    """

    def __init__(self, model: nn.Module, real: Moments, *, blocks: int = 1) -> None:
        """real: (sum of C,) each, layer after layer."""
        layers = convolutions(model)
        super().__init__(layers, [layer.in_channels for layer in layers], blocks)
        self._real = torch.cat(real)

    def distances(self) -> Tensor:
        """(G, L) fp32: of each layer as `BatchNormStatistics` counts them."""
        return self._distances_to(self._real)


class ClassStatistics(Listener):
    """What every BatchNorm2d sees of each image, beside what it sees of a mean image of its class.

    A block holds one image a class, so a class's statistics in it are those of one image: mean and variance over its
    pixels, held to the mean of the same two over the real images of the class. Averaged over the block before the
    distance is taken, as EDC's code does with blocks of few classes, they would tell one class from another no more.
    Source: EDC (arXiv 2404.13733), soft category-aware matching; recover/utils.py, BNFeatureHook.
    """

    def __init__(self, model: nn.Module, real: Moments, *, blocks: int = 1) -> None:
        """real: (N, sum of C) each, of each image's class, layer after layer."""
        layers, self._blocks = batch_norms(model), blocks
        super().__init__(layers, image_moments)
        widths = [layer.num_features for layer in layers]
        self._real = list(zip(*(torch.split(values, widths, 1) for values in real), strict=True))

    def distances(self) -> Tensor:
        """(G, L) fp32: of each layer, the mean over a block's images of ||mean - class's|| + ||variance - class's||."""
        distances = [
            (mean - real_mean).norm(dim=1) + (var - real_var).norm(dim=1)
            for (mean, var), (real_mean, real_var) in zip(self.heard(), self._real, strict=True)
        ]
        return torch.stack(distances, 1).view(self._blocks, -1, len(distances)).mean(1)


def image_moments(features: Tensor) -> Moments:
    """(N, C, H, W) in any precision -> mean and biased variance over the pixels of each image, (N, C) fp32 each."""
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
        elif blocks == 1:
            mean, var = (values[None] for values in torch.batch_norm_update_stats(features, None, None, 0.0))
        else:
            mean, var = moments_at_once(features, blocks)
        ctx.save_for_backward(features, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        features, mean = ctx.saved_tensors
        by_mean, by_var = (grad * mean.numel() / features.numel() for grad in grads)
        if features.device.type == "cpu" or len(mean) == 1:
            given = zip(features.chunk(len(mean)), mean, 2 * by_var, by_mean, strict=True)
            parts = [_straight(*one) for one in given]
            return parts[0] if len(parts) == 1 else torch.cat(parts), None
        return lines_at_once(features, 2 * by_var, by_mean - 2 * by_var * mean), None


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


def _straight(features: Tensor, mean: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """slope * (features - mean) + height, (C,) each, as batch norm computes it: one pass, fp32 inside, any type outside."""
    return torch.native_batch_norm(features, slope, height, mean, torch.ones_like(mean), False, 0.0, 0.0)[0]


def moments_at_once(features: Tensor, blocks: int) -> Moments:
    """As `channel_moments`, without a launch for each block: sums of values and of their squares, in fp32."""
    grouped, count = torch.unflatten(features, 0, (blocks, -1)), features.numel() // features.shape[1] // blocks
    mean = grouped.sum((1, 3, 4), dtype=torch.float32) / count
    norm = torch.linalg.vector_norm(grouped, dim=(1, 3, 4), dtype=torch.float32)
    return mean, (norm.square() / count - mean.square()).clamp(min=0)


def lines_at_once(features: Tensor, slope: Tensor, height: Tensor) -> Tensor:
    """slope * features + height, (G, C) each, in the type of the features, without a launch for each block."""
    grouped = torch.unflatten(features, 0, (len(slope), -1))
    slope, height = slope[:, None, :, None, None], height[:, None, :, None, None]
    return torch.addcmul(height, grouped, slope, out=torch.empty_like(grouped)).flatten(0, 1)
