"""What batch-norm layers see of a batch, beside what they remember of the real data.

N images, C channels, H W pixels, L batch-norm layers.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

ROWS = 8192  # pixels that one sum runs over on a CPU, which adds them one by one in fp32


TINY = 1e-30  # below this a squared distance counts as none, so that its root has a gradient


class BatchNormStatistics:
    """Listens to every BatchNorm2d of a model while it is open, and leaves nothing behind when it closes.

    statistics = BatchNormStatistics(model)
    with statistics:
        logits = model(images)
    loss = statistics.distances().sum()
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        self._widths = torch.tensor([layer.num_features for layer in self._layers] * 2)
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._moments: dict[int, tuple[Tensor, Tensor]] = {}

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

    def distances(self) -> Tensor:
        """(L,) fp32: each layer's distance in the last forward pass, in the order of `modules()`; empty without layers.

        Of a layer: ||mean - running mean|| + ||variance - running variance||. The norms are not squared and the batch
        variance is biased, as in the authors' code. Source: arXiv 2506.24125 eq. 52; FADRM utils_recover.py.
        Forgets the pass, so that the memory of its features is free after the backward pass.
        """
        if not self._layers:
            return torch.zeros(0)
        moments = [self._moments.pop(index) for index in range(len(self._layers))]
        seen = torch.cat([mean for mean, _ in moments] + [var for _, var in moments])
        gaps = self._remembered() - seen
        self._widths = self._widths.to(gaps.device)
        squares = torch.segment_reduce(gaps.square(), "sum", lengths=self._widths, unsafe=True)
        distances: Tensor = squares.clamp(min=TINY).sqrt().view(2, -1).sum(0)
        return distances

    def _remembered(self) -> Tensor:
        means, variances = (
            [getattr(layer, name) for layer in self._layers] for name in ("running_mean", "running_var")
        )
        return torch.cat(means + variances)

    def _listener(self, index: int) -> Callable[[nn.Module, Any], None]:
        def listen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self._moments[index] = ChannelStatistics.apply(inputs[0])

        return listen


class ChannelStatistics(torch.autograd.Function):
    """(N, C, H, W) in any precision -> mean and biased variance of each channel, (C,) fp32 each.

    torch.var_mean gives the same numbers, but takes 30 times as long on a CPU, and its gradient four passes over the
    features instead of one.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, var = _moments(features)
        ctx.save_for_backward(features, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        features, mean = ctx.saved_tensors
        count = features.numel() // len(mean)
        by_mean, by_var = grads
        offset = torch.addcmul(by_mean, mean, by_var, value=-2) / count
        gradient = torch.addcmul(offset[:, None, None], features, by_var[:, None, None], value=2 / count)
        return gradient.to(features.dtype)


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel; on a CPU in parts of about ROWS pixels, for the sake of exactness."""
    if features.device.type != "cpu":
        return torch.batch_norm_update_stats(features, None, None, 0.0)
    parts = torch.split(features, max(1, ROWS // features[0, 0].numel()))
    ignored = torch.ones(2, features.shape[1])  # running statistics; their presence makes it answer in fp32
    moments = [torch.batch_norm_update_stats(part, ignored[0], ignored[1], 0.0) for part in parts]
    means, variances = (torch.stack(column) for column in zip(*moments, strict=True))
    share = torch.tensor([len(part) / len(features) for part in parts])[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)
