"""What batch-norm layers see of a batch, beside what they remember of the real data.

N images, C channels, H W pixels, L batch-norm layers.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

ROWS = 8192  # pixels that one sum runs over on a CPU, which adds them one by one in fp32


def bn_matching(features: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Distance between a batch's channel statistics and the ones that a teacher remembers.

    features: (N, C, H, W), what enters one batch-norm layer, in any precision; the statistics are fp32.
    mean, var: (C,), that layer's running statistics.
    Returns a scalar >= 0. The norms are not squared and the batch variance is biased, as in the authors' code.
    Source: arXiv 2506.24125; FADRM utils_recover.py.
    """
    batch_mean, batch_var = ChannelStatistics.apply(features)
    distance: Tensor = torch.linalg.vector_norm(var - batch_var) + torch.linalg.vector_norm(mean - batch_mean)
    return distance


class ChannelStatistics(torch.autograd.Function):
    """(N, C, H, W) -> mean and biased variance of each channel, (C,) fp32 each, in one pass over the features.

    torch.var_mean gives the same numbers, but takes 30 times as long on a CPU, and its gradient four passes.
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
        slope = grads[1] * (2 / count)
        offset = grads[0] / count - mean * slope
        gradient = torch.addcmul(offset[:, None, None], features, slope[:, None, None])
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


class BatchNormStatistics:
    """Listens to every BatchNorm2d of a model while it is open, and leaves nothing behind when it closes.

    with BatchNormStatistics(model) as statistics:
        logits = model(images)
    loss = statistics.distances().sum()
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
        self._distances: dict[int, Tensor] = {}

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
        """(L,): each layer's distance in the last forward pass, in the order of `modules()`; empty without layers."""
        if not self._layers:
            return torch.zeros(0)
        return torch.stack([self._distances[index] for index in range(len(self._layers))])

    def _listener(self, index: int) -> Callable[[nn.Module, Any], None]:
        def listen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.BatchNorm2d)
            assert layer.running_mean is not None and layer.running_var is not None
            self._distances[index] = bn_matching(inputs[0], layer.running_mean, layer.running_var)

        return listen
