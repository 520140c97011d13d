"""What students see and what teachers say of it: the batches of an epoch, drawn once and rendered the same for both.

N images of an epoch, B batches, n images of a batch, C channels, S pixels a side, K classes, T teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.augment import crop_pixels, draw_boxes, draw_flips, draw_mix_box, paste
from engine.datasets import Statistics
from engine.networks import looked_at_together
from engine.pixels import normalised
from engine.precision import Precision, computing, sent
from engine.randomness import generator

LABELLED_PIXELS = 2**17  # of batches that a teacher sees at once on a CPU
RENDERED_PIXELS = 2**20  # drawn at once at most, unless one batch is more; fixed, so that all who render do it alike


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """One epoch of batches: which image at which position, and what is done to it. All on the CPU."""

    batch_size: int
    order: Tensor  # (N,) int32: index of the image at each position
    boxes: Tensor  # (N, 4) int16: crop as top, left, height, width, px
    flips: Tensor  # (N,) bool
    partners: Tensor  # (N,) int16: position, within its batch, of the image that is pasted in
    mix_boxes: Tensor  # (B, 4) int16: CutMix's top, left, bottom, right, px; empty rectangles for none

    @property
    def batches(self) -> list[slice]:
        """The positions of each batch."""
        return batch_slices(len(self.order), self.batch_size)

    def tensors(self) -> dict[str, Tensor]:
        """The plan as arrays, for storage."""
        return {name: getattr(self, name) for name in PLAN_ARRAYS}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], *, batch_size: int) -> LabelPlan:
        """The plan back from its arrays."""
        return cls(batch_size=batch_size, **{name: tensors[name] for name in PLAN_ARRAYS})


PLAN_ARRAYS = ("order", "boxes", "flips", "partners", "mix_boxes")


def batch_slices(count: int, batch_size: int) -> list[slice]:
    """Positions of each batch; a last image that would be alone joins the batch before it."""
    starts = list(range(0, count, batch_size))
    if count % batch_size == 1 and len(starts) > 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def halves(count: int) -> list[slice]:
    """The parts of a batch that a network sees at once: two, or one where a half would be a single image.

    Batch norm cannot take statistics of one image, and of two or three there is no better cut.
    """
    if count < 4:
        return [slice(0, count)]
    return [slice(0, count // 2), slice(count // 2, count)]


def halves_of(batch: slice) -> list[slice]:
    """The halves of a batch among others."""
    return [slice(batch.start + half.start, batch.start + half.stop) for half in halves(batch.stop - batch.start)]


def draw_plan(
    count: int, *, batch_size: int, side: int, seed: int, epoch: int, flip: bool = True, cutmix: bool = True
) -> LabelPlan:
    """The batches of one epoch over `count` images of side x side px: they depend on (seed, epoch) only.

    Source of the distributions: FADRM relabel.py, utils_fkd.py.
    """
    chance = generator(seed, "label plan", epoch)
    order = torch.randperm(count, generator=chance)
    boxes = draw_boxes(count, height=side, width=side, generator=chance)
    flips = draw_flips(count, generator=chance)
    slices = batch_slices(count, batch_size)
    partners = [torch.randperm(part.stop - part.start, generator=chance) for part in slices]
    mix_boxes = [draw_mix_box(side, generator=chance) for _ in slices]
    return LabelPlan(
        batch_size=batch_size,
        order=order.int(),
        boxes=boxes.short(),
        flips=flips & flip,
        partners=torch.cat(partners).short(),
        mix_boxes=torch.tensor(mix_boxes, dtype=torch.int16) * cutmix,
    )


def rendered_batches(
    images: Tensor, plan: LabelPlan, *, statistics: Statistics, device: torch.device
) -> Iterator[tuple[slice, Tensor]]:
    """Every batch of the epoch in turn: its positions, and its images (n, C, S, S), normalised and mixed, on the device.

    images: (N, C, S, S) uint8, wherever they lie. Teacher and student both look at this, so they see the same.
    """
    per_pass = max(1, RENDERED_PIXELS // (plan.batch_size * images.shape[-1] ** 2))
    batches = plan.batches
    for first in range(0, len(batches), per_pass):
        part = batches[first : first + per_pass]
        rendered = render(images, plan, range(first, first + len(part)), statistics=statistics, device=device)
        for batch in part:
            yield batch, rendered[batch.start - part[0].start : batch.stop - part[0].start]


def render(images: Tensor, plan: LabelPlan, batches: range, *, statistics: Statistics, device: torch.device) -> Tensor:
    """Consecutive batches of a plan, one behind the other: (n, C, S, S) normalised: crop, flip, normalise, CutMix."""
    slices = plan.batches[batches.start : batches.stop]
    rows = slice(slices[0].start, slices[-1].stop)
    pixels = sent(images[sent(plan.order[rows].long(), images.device)], device)
    levels = crop_pixels(pixels, plan.boxes[rows], plan.flips[rows], images.shape[-1])
    sizes = torch.tensor([batch.stop - batch.start for batch in slices])
    starts = torch.tensor([batch.start - rows.start for batch in slices])
    partners = plan.partners[rows].long() + starts.repeat_interleave(sizes)
    boxes = plan.mix_boxes[batches.start : batches.stop].repeat_interleave(sizes, 0)
    return paste(normalised(levels, statistics), partners, boxes)


def mix_shares(plan: LabelPlan, side: int) -> Tensor:
    """(B,) float32: the share of each batch's area, 0..1, that CutMix takes from the partners."""
    top, left, bottom, right = plan.mix_boxes.float().T
    area: Tensor = (bottom - top) * (right - left)
    return area / side**2


def soft_labels(
    teachers: Sequence[nn.Module],
    images: Tensor,
    *,
    batches: Sequence[slice] = (),
    statistics: Literal["batch", "running"] = "batch",
    precision: Precision = "fp32",
) -> Tensor:
    """(n, C, S, S) images -> (n, K) fp32: the mean of the teachers' logits.

    batches: where each begins and ends; by default it is one. statistics: "batch" normalises by the statistics of each
    half batch, which is also what the student's own batch norm will see (BSSL); "running" by those of the real data.
    The teachers are left as they were; dropout stays off. Source: FADRM relabel.py.
    """
    parts = [part for batch in batches or [slice(0, len(images))] for part in halves_of(batch)]
    images = images.contiguous(memory_format=torch.channels_last)
    total = torch.zeros((), device=images.device)
    for teacher in teachers:
        with (
            torch.no_grad(),
            labelling(teacher, statistics),
            apart(teacher, parts if statistics == "batch" else []),
            computing(precision, images.device),
        ):
            total = total + teacher(images).float()
    return total / len(teachers)


def labelled(
    teachers: Sequence[nn.Module],
    images: Tensor,
    plan: LabelPlan,
    *,
    statistics: Statistics,
    batch_norm: Literal["batch", "running"],
    precision: Precision,
    device: torch.device,
) -> Tensor:
    """(N, C, S, S) uint8 -> (N, K) fp16 on the device: the teachers' logits of a whole epoch, by position."""
    side = images.shape[-1]
    most = looked_at_together(side, "cuda") if device.type == "cuda" else LABELLED_PIXELS // side**2
    logits: list[Tensor] = []
    rendered = rendered_batches(images, plan, statistics=statistics, device=device)
    for together in _gathered((inputs for _, inputs in rendered), most):
        stops = list(accumulate(map(len, together)))
        batches = [slice(stop - len(inputs), stop) for inputs, stop in zip(together, stops, strict=True)]
        inputs = torch.cat(together)
        logits.append(soft_labels(teachers, inputs, batches=batches, statistics=batch_norm, precision=precision).half())
    return torch.cat(logits)


def _gathered(batches: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Consecutive batches, of up to so many images together, unless one is more."""
    together: list[Tensor] = []
    for batch in batches:
        if together and sum(map(len, together)) + len(batch) > most:
            yield together
            together = []
        together.append(batch)
    if together:
        yield together


@contextmanager
def apart(model: nn.Module, parts: Sequence[slice]) -> Iterator[None]:
    """Batch norm treats each part of a batch as if it came alone; all else sees the batch as one."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)] if len(parts) > 1 else []
    try:
        for norm in norms:
            norm.forward = partial(_by_parts, norm, parts)  # type: ignore[method-assign]
        yield
    finally:
        for norm in norms:
            del norm.forward


def _by_parts(norm: nn.BatchNorm2d, parts: Sequence[slice], features: Tensor) -> Tensor:
    """(n, C, H, W), each part normalised by itself, one after another."""
    sizes = [part.stop - part.start for part in parts]
    if features.device.type == "cuda" and not norm.track_running_stats and len(set(sizes)) == 1:
        return folded(norm, features, len(parts))
    return torch.cat([nn.BatchNorm2d.forward(norm, part) for part in torch.split(features, sizes)])


def folded(norm: nn.BatchNorm2d, features: Tensor, parts: int) -> Tensor:
    """The same for equal parts and no running statistics, without a launch for each: parts are channels of their own."""
    weight, bias = norm.weight.repeat(parts), norm.bias.repeat(parts)
    channels = torch.unflatten(features, 0, (parts, -1)).transpose(0, 1).flatten(1, 2)
    seen = F.batch_norm(channels, None, None, weight, bias, training=True, eps=norm.eps)
    seen = torch.unflatten(seen, 1, (parts, -1)).transpose(0, 1).flatten(0, 1)
    return seen.contiguous(memory_format=torch.channels_last)


@contextmanager
def labelling(model: nn.Module, statistics: Literal["batch", "running"]) -> Iterator[None]:
    """Eval mode, but with the batch's own statistics where asked for; nothing of the model is changed afterwards."""
    was_training = {module: module.training for module in model.modules()}
    tracked = {layer: layer.track_running_stats for layer in was_training if isinstance(layer, nn.BatchNorm2d)}
    model.eval()
    try:
        for layer in tracked if statistics == "batch" else ():
            layer.training, layer.track_running_stats = True, False
        yield
    finally:
        for layer, tracks in tracked.items():
            layer.track_running_stats = tracks
        for module, training in was_training.items():
            module.training = training
