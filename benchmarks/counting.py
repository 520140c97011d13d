"""Operations and bytes that a unit of work cannot do without. A multiply-add counts as two operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.workloads import Workload
from engine.models import build
from engine.networks import forward_flop

# Forward passes that a unit's operations amount to. Recovery needs the input's gradient, and none of the weights'.
FORWARDS = {"recover": 2.0, "service": 2.0, "workers": 2.0, "labels": 1.0, "student": 3.0, "teach": 3.0}
# How often each map between a convolution and its batch norm is moved at least, with all that is pointwise fused.
# Forward 4: the convolution writes it, the norm reads it and writes its result, the next convolution reads that.
# Backward 5: the gradient comes and is read, the map is read again, the gradient of the map goes and is read.
# A gradient of weights reads the norm's result once more.
MOVES = {"recover": 9.0, "service": 9.0, "workers": 9.0, "labels": 4.0, "student": 10.0, "teach": 10.0}


def counted(workload: Workload) -> tuple[float, float]:
    """(operations, values moved) of a unit; zeros where no network is asked."""
    forwards = FORWARDS.get(workload.kind, 0.0)
    if not forwards:
        return 0.0, 0.0
    networks = workload.networks
    flop = forwards * sum(forward_flop(name, workload.resolution) for name in networks)
    values = MOVES[workload.kind] * sum(map_values(name, workload.resolution) for name in networks)
    if workload.kind != "labels":  # recovery asks one teacher an iteration; labels ask all
        flop, values = flop / len(networks), values / len(networks)
    return flop, values


def map_values(name: str, resolution: int) -> int:
    """Values that enter the batch norms of a network for one image."""
    found = 0

    def add(_: nn.Module, inputs: Any) -> None:
        nonlocal found
        found += inputs[0].numel()

    with torch.device("meta"):
        model = build(name, num_classes=10, resolution=resolution).eval()
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.register_forward_pre_hook(add)
        model(torch.empty(1, 3, resolution, resolution))
    return found
