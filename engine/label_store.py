"""Soft labels as they are kept: in full, the largest of each, of a pool of epochs that serve the others again, or not at all.

E epochs kept, N images of an epoch, B batches, n images of a batch, K classes, k logits kept of a label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from engine import arrays
from engine.datasets import Statistics
from engine.labels import PLAN_ARRAYS, LabelPlan, batch_slices, labelled
from engine.precision import Precision
from engine.randomness import generator

FULL = ("logits",)
LARGEST = ("top_values", "top_classes", "rest")


def kept(logits: Tensor, top_k: int | None) -> dict[str, Tensor]:
    """(N, K) fp16 logits -> the arrays that are stored of them.

    top_k: keep so many of the largest, (N, k), and the mean of the others, (N,): at high temperatures they share the mass
    that is left almost as if each had that logit. Source of the idea: SRe2L's keep_top_k; LPQLD.
    """
    if top_k is None or top_k >= logits.shape[1]:
        return {"logits": logits}
    values, classes = logits.float().topk(top_k)
    rest = (logits.float().sum(1) - values.sum(1)) / (logits.shape[1] - top_k)
    return {"top_values": values.half(), "top_classes": classes.short(), "rest": rest.half()}


def shapes(images: int, classes: int, top_k: int | None) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape, for one epoch, and type of each array that `kept` gives."""
    if top_k is None or top_k >= classes:
        return {"logits": ((images, classes), torch.float16)}
    return {
        "top_values": ((images, top_k), torch.float16),
        "top_classes": ((images, top_k), torch.int16),
        "rest": ((images,), torch.float16),
    }


def whole(parts: Mapping[str, Tensor], classes: int) -> Tensor:
    """What `kept` stored of an epoch -> (N, K) fp16 logits."""
    if "logits" in parts:
        return parts["logits"]
    logits = parts["rest"][:, None].repeat(1, classes)
    return logits.scatter_(1, parts["top_classes"].long(), parts["top_values"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Which epoch of a pool serves, and in which order its batches do. Whole batches: labels hold with their half only."""

    epoch: int
    batches: Tensor  # (B,) int64

    def plan(self, plan: LabelPlan) -> LabelPlan:
        """A stored plan in this order."""
        positions = self.positions(plan.batches)
        own = {name: values[positions] for name, values in plan.tensors().items() if name != "mix_boxes"}
        return LabelPlan.of(own | {"mix_boxes": plan.mix_boxes[self.batches]}, batch_size=plan.batch_size)

    def positions(self, batches: list[slice]) -> Tensor:
        """(N,) int64: where what is shown stands in the stored epoch."""
        return torch.cat([torch.arange(batches[index].start, batches[index].stop) for index in self.batches.tolist()])


def turn(epoch: int, *, pool: int, images: int, batch_size: int, seed: int) -> Turn:
    """What serves in an epoch: itself within the pool; after it, pool epochs in turn, their full batches shuffled."""
    slices = batch_slices(images, batch_size)
    if epoch < pool:
        return Turn(epoch=epoch, batches=torch.arange(len(slices)))
    full = sum(part.stop - part.start == batch_size for part in slices)
    order = torch.randperm(full, generator=generator(seed, "label pool", epoch))
    return Turn(epoch=epoch % pool, batches=torch.cat([order, torch.arange(full, len(slices))]))


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelStore:
    """The labels of a whole relabel step, or of a download, read where they are touched."""

    parts: Mapping[str, Tensor]  # by name: (E, N, ...), of batches (E, B, 4)
    classes: int
    batch_size: int
    seed: int

    @classmethod
    def open(cls, folder: Path, *, classes: int, batch_size: int, seed: int) -> LabelStore:
        """Raises OSError where there is none."""
        names = FULL if (folder / "logits.npy").exists() else LARGEST
        parts = {name: arrays.read(folder / f"{name}.npy") for name in (*PLAN_ARRAYS, *names)}
        return cls(parts=parts, classes=classes, batch_size=batch_size, seed=seed)

    def epoch(self, epoch: int) -> tuple[LabelPlan, Tensor]:
        """What a student sees in an epoch, and its (N, K) fp16 logits, by position."""
        pool, images = self.parts["order"].shape
        now = turn(epoch, pool=pool, images=images, batch_size=self.batch_size, seed=self.seed)
        own = {name: values[now.epoch] for name, values in self.parts.items()}
        plan = LabelPlan.of(own, batch_size=self.batch_size)
        logits = whole({name: own[name] for name in own if name not in PLAN_ARRAYS}, self.classes)
        if epoch < pool:
            return plan, logits
        return now.plan(plan), logits[now.positions(plan.batches)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMaker:
    """The labels that a store would hold, made as they are asked for: the same to the byte."""

    teachers: Sequence[nn.Module]
    images: Tensor  # (N, C, S, S) uint8
    draw: Callable[[int], LabelPlan]  # the plan of an epoch, as relabelling draws it
    batch_size: int
    pool: int  # epochs
    batch_norm: Literal["batch", "running"]
    statistics: Statistics
    precision: Precision
    device: torch.device
    seed: int

    def epoch(self, epoch: int) -> tuple[LabelPlan, Tensor]:
        """What a student sees in an epoch, and its (N, K) fp16 logits, by position."""
        now = turn(epoch, pool=self.pool, images=len(self.images), batch_size=self.batch_size, seed=self.seed)
        plan = self.draw(now.epoch)
        logits = labelled(
            self.teachers,
            self.images,
            plan,
            statistics=self.statistics,
            batch_norm=self.batch_norm,
            precision=self.precision,
            device=self.device,
        )
        return now.plan(plan), logits[now.positions(plan.batches).to(logits.device)]
