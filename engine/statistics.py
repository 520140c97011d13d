"""What batch-norm layers see of a batch, beside what they remember of the real data.

N images, C channels, H W pixels, L batch-norm layers.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn


def bn_matching(features: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    """Distance between a batch's channel statistics and the ones that a teacher remembers.

    features: (N, C, H, W), what enters one batch-norm layer, in any precision; the statistics are taken in fp32.
    mean, var: (C,), that layer's running statistics.
    Returns a scalar >= 0. The norms are not squared and the batch variance is biased, as in the authors' code.
    Source: arXiv 2506.24125; FADRM utils_recover.py.
    """
    batch_var, batch_mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
    distance: Tensor = torch.linalg.vector_norm(var - batch_var) + torch.linalg.vector_norm(mean - batch_mean)
    return distance


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
        """(L,): the distance of each layer in the last forward pass, in the order of `modules()`; empty without layers."""
        if not self._layers:
            return torch.zeros(0)
        return torch.stack([self._distances[index] for index in range(len(self._layers))])

    def _listener(self, index: int) -> Callable[[nn.Module, Any], None]:
        def listen(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.BatchNorm2d)
            assert layer.running_mean is not None and layer.running_var is not None
            self._distances[index] = bn_matching(inputs[0], layer.running_mean, layer.running_var)

        return listen
