"""Batch norms of a frozen network together with what stands around them: statistics, a sum, a rectifier, in one pass.

A teacher that is matched spends more time on these than on its convolutions, once those are fast: each of them is a pass
over a map in memory, and torch knows them one by one. What comes out is the same, but for roundings left out between them.

G blocks, N images of them all, block after block; C channels, H W pixels.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from engine import passes
from engine.moments import Moments, channel_moments
from engine.passes import Line, Pass

SUMS = (operator.add, operator.iadd, torch.add)
RELU6 = 6.0

Hear = Callable[[Moments], None]


class FusedNorm(nn.BatchNorm2d):
    """A batch norm in eval mode, with what comes behind it: (N, C, H, W), and what is added -> (N, C, H, W)."""

    ceiling: float  # of the rectifier behind it: inf of a ReLU, 6 of a ReLU6, 0 where there is none
    blocks: int  # whose statistics are told apart
    hear: Hear | None  # is told of the statistics of what enters
    scale: Tensor  # (C,) of the values, by weight and remembered variance

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, ceiling: float) -> Self:
        """Beside the given one, with the same parameters."""
        fused = copy.copy(norm)
        fused.__class__ = cls
        assert isinstance(fused, cls)
        assert norm.running_var is not None
        fused.ceiling, fused.blocks, fused.hear = ceiling, 1, None
        fused.scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        return fused

    def forward(self, features: Tensor, skip: Tensor | None = None) -> Tensor:
        way = passes.way([features] if skip is None else [features, skip])
        if way is None:
            return self._by_torch(features, skip)
        assert self.running_mean is not None
        told = self.hear is not None
        line = Line(self.running_mean, self.scale, self.bias, self.ceiling, self.blocks if told else 1, told)
        seen, mean, var = Pass.apply(features, skip, line, way)
        if self.hear is not None:
            self.hear((mean, var))
        result: Tensor = seen
        return result

    def _by_torch(self, features: Tensor, skip: Tensor | None) -> Tensor:
        """The same, one after another."""
        if self.hear is not None:
            self.hear(channel_moments(features, blocks=self.blocks))
        seen = super().forward(features)
        if skip is not None:
            seen = seen + skip
        if self.ceiling == 0:
            return seen
        return F.relu(seen) if self.ceiling == math.inf else F.hardtanh(seen, 0.0, self.ceiling)


class LeanConv(nn.Conv2d):
    """A frozen convolution that keeps its weights alone for its gradient: torch's own keeps what enters, too."""

    def forward(self, features: Tensor) -> Tensor:
        shape = self.stride, self.padding, self.dilation, self.groups
        result: Tensor = _Convolution.apply(features, self.weight, self.bias, *shape)
        return result


class _Convolution(torch.autograd.Function):
    """A convolution, and its gradient by what enters."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
        ctx.size, ctx.shape = features.shape, shape
        ctx.save_for_backward(weight)
        return F.conv2d(features, weight, bias, *shape)

    @staticmethod
    def backward(ctx: Any, by_result: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        by_result = by_result.to(weight.dtype)
        by_features = conv2d_input(ctx.size, weight, by_result, *ctx.shape)  # type: ignore[no-untyped-call]
        return by_features, *[None] * 6


def fused(model: nn.Module) -> nn.Module:
    """A frozen model whose batch norms take in what comes behind them; the parameters are the given model's.

    On a GPU its convolutions keep less for the gradient, too.

    The model itself, which is left as it is, where nothing is to be taken in, and where it calls its layers in another
    order than it names them: `modules()` of what is traced has them as they are called, and who listens counts on both
    to be the same (which norm is the first, and the layers of what was observed of the real images).
    """
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()):
        return model
    traced = fx.GraphModule(model, _Layers().trace(model))
    if _listened(traced) != _listened(model):
        return model
    for norm, node in list(_norm_nodes(traced)):
        taken, skip, ceiling = _taken_in(traced, node)
        target, last = str(node.target), taken[-1]
        traced.set_submodule(target, FusedNorm.of(norm, ceiling))
        with traced.graph.inserting_before(last):
            call = traced.graph.call_module(target, (node.args[0], *([] if skip is None else [skip])))
        last.replace_all_uses_with(call)
        for gone in reversed(taken):
            traced.graph.erase_node(gone)
    for name, layer in list(traced.named_modules()):
        if type(layer) is nn.Conv2d and layer.weight.device.type == "cuda" and _is_plain(layer):
            lean = copy.copy(layer)
            lean.__class__ = LeanConv
            traced.set_submodule(name, lean)
    traced.recompile()
    return traced.eval()


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether it pads by so many zeros."""
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _listened(model: nn.Module) -> list[str]:
    """The layers whose statistics are matched, in the order of `modules()`."""
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d | nn.Conv2d)]


class _Layers(fx.Tracer):
    """Sees a network as its layers: what has no parts is one, whatever it does inside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's names
        return not any(m.children())


def _norm_nodes(traced: fx.GraphModule) -> Iterator[tuple[nn.BatchNorm2d, fx.Node]]:
    """Every norm that is called once."""
    called = [node for node in traced.graph.nodes if node.op == "call_module"]
    times = Counter(node.target for node in called)
    for node in called:
        layer = traced.get_submodule(node.target)
        if isinstance(layer, nn.BatchNorm2d) and times[node.target] == 1:
            yield layer, node


def _taken_in(traced: fx.GraphModule, norm: fx.Node) -> tuple[list[fx.Node], fx.Node | None, float]:
    """The norm and what it takes in, one after another; what is added on the way; the ceiling of the rectifier."""
    taken, skip, ceiling = [norm], None, 0.0
    behind = _only_user(norm)
    if behind is not None and behind.target in SUMS and len(behind.args) == 2 and not behind.kwargs:  # alpha
        others = [value for value in behind.args if value is not norm]
        if len(others) == 1 and isinstance(others[0], fx.Node):
            skip = others[0]
            taken.append(behind)
            behind = _only_user(behind)
    if behind is not None and (ceiling := _ceiling(traced, behind)):
        taken.append(behind)
    return taken, skip, ceiling


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _ceiling(traced: fx.GraphModule, node: fx.Node) -> float:
    """Of a rectifier: inf or 6; 0 of everything else."""
    kind = type(traced.get_submodule(str(node.target))) if node.op == "call_module" else node.target
    if kind in (nn.ReLU, F.relu, torch.relu, "relu", "relu_"):
        return math.inf
    return RELU6 if kind in (nn.ReLU6, F.relu6) else 0.0
