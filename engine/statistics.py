"""What layers of a teacher see of a batch, beside what they are known to see of the real data.

G blocks, each with statistics of its own; N images of them all, block after block; C channels, H W pixels, L layers.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Self

import torch
from torch import Tensor, nn

from engine.fused import FusedNorm, Hear
from engine.moments import Moments, channel_moments, image_moments

TINY = 1e-30  # below this a squared distance counts as none, so that its root has a gradient


class Listener:
    """Listens to what enters some layers while it is open, and leaves nothing behind when it closes.

    listener = Listener(batch_norms(model), image_moments)
    with listener:
        logits = model(images)
    moments = listener.heard()
    """

    def __init__(self, layers: Sequence[nn.Module], moments: Callable[[Tensor], Moments]) -> None:
        self._layers, self._moments_of = layers, moments
        self._open = ExitStack()
        self._moments: dict[int, Moments] = {}

    def __enter__(self) -> Self:
        for index, layer in enumerate(self._layers):
            self._open.callback(self._attend(layer, partial(self._moments.__setitem__, index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def heard(self) -> list[Moments]:
        """Each layer's moments in the last forward pass, in the order of the layers.

        Forgets the pass, so that the memory of its features is free after the backward pass.
        """
        return [self._moments.pop(index) for index in range(len(self._layers))]

    def _attend(self, layer: nn.Module, hear: Hear) -> Callable[[], None]:
        """From here on `hear` is told what enters the layer, until the answer is called."""
        return layer.register_forward_pre_hook(lambda _, inputs: hear(self._moments_of(inputs[0]))).remove


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
        self._blocks = blocks
        self._widths = torch.tensor([*widths, *widths])

    def _attend(self, layer: nn.Module, hear: Hear) -> Callable[[], None]:
        if not isinstance(layer, FusedNorm):
            return super()._attend(layer, hear)
        layer.blocks, layer.hear = self._blocks, hear  # it counts them in a pass that it makes anyway
        return partial(setattr, layer, "hear", None)

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
        self._norms = batch_norms(model)
        self._device = next(model.parameters()).device
        super().__init__(self._norms, [layer.num_features for layer in self._norms], blocks)

    def distances(self) -> Tensor:
        """(G, L) fp32: each layer's distance in the last forward pass, in the order of `modules()`; (G, 0) without layers.

        Of a layer: ||mean - running mean|| + ||variance - running variance||. The norms are not squared and the batch
        variance is biased, as in the authors' code. Source: arXiv 2506.24125 eq. 52; FADRM utils_recover.py.
        """
        if not self._norms:
            return torch.zeros(self._blocks, 0, device=self._device)
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
