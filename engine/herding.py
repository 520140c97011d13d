"""Herding: real images whose mean features come nearest to their class's, chosen one by one. N images, D features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.precision import Precision, computing


def features(model: nn.Module, images: Tensor, *, precision: Precision = "fp32") -> Tensor:
    """(N, C, H, W) normalised -> (N, D) float32: what enters the network's last linear layer."""
    last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    heard: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    try:
        with torch.no_grad(), computing(precision, images.device):
            model(images.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    return heard[0].float()


def herd(found: Tensor, count: int) -> Tensor:
    """(N, D) features of one class -> (count,) int64: which images, in the order in which they were chosen; count <= N.

    The k-th is the one that brings the mean of the k chosen nearest to the mean of all, and none is taken twice:
    argmin_x || k mean - sum of those chosen - x ||. Features are taken as they are, as the code of the distillation
    papers that report herding does (DC's line, GCond); iCaRL scales each to length 1 before.
    Source: Welling, Herding dynamical weights to learn, ICML 2009; iCaRL (CVPR 2017), algorithm 4.
    """
    found = found.double()
    mean, total = found.mean(0), torch.zeros_like(found[0])
    free = torch.ones(len(found), dtype=torch.bool, device=found.device)
    chosen = []
    for rank in range(1, count + 1):
        distances = (rank * mean - total - found).norm(dim=1).masked_fill(~free, torch.inf)
        best = distances.argmin(0, keepdim=True)
        chosen.append(best)
        total = total + found.index_select(0, best)[0]
        free.index_fill_(0, best, False)
    return torch.cat(chosen).cpu()
