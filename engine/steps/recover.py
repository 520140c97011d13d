"""Optimises images for a range of ipc indices: one image per class at a time, in blocks of classes that share batch statistics.

Leaves images.npy (I, K, 3, S, S) uint8. I images per class of this shard, K classes, N images of a block, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from engine import arrays
from engine import device as devices
from engine.checkpoint import Checkpoint, taken_from, under
from engine.context import Context, State, Telling
from engine.data import RealData, chunks, images_of, real_data, teachers
from engine.events import Event, Injection, Metric, Preview, Progress, Started
from engine.methods import Recipe
from engine.observed import Observed
from engine.params import RecoverParams
from engine.pixels import denormalised, normalised, to_pixels
from engine.precision import Precision, computing
from engine.recovery import Iteration, Recovery, inject
from engine.sheets import contact_sheet, sheet_columns, sheet_tile

CURVE_POINTS = 100  # of the first block's curves
PREVIEWS = 12  # of the first block, beside those around injections
SHOWN_IMAGES = 50
UNIT = "image-iterations"


class Block(NamedTuple):
    """Images that are optimised together: one of each class in [start, stop)."""

    ipc: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def recover(context: Context[RecoverParams]) -> Telling:
    """Blocks one after another; the curves and previews over time are those of the first."""
    shard = _Shard.begin(context)
    resumed = shard.restore(context.resumed())
    yield Started(total=shard.total, unit=UNIT, resumed_at=shard.done(resumed), device=str(context.device))
    for index in range(len(shard.ends), len(shard.blocks)):
        recovery = resumed or shard.recovery(index)
        resumed = None
        yield from _optimise(context, shard, recovery)
        yield from _keep(shard, recovery)
        if index + 1 < len(shard.blocks):
            yield from context.pause(shard.done(None), lambda: shard.state(None))
    return {
        "loss_end": sum(shard.ends) / len(shard.ends),
        "entropy_bits": sum(shard.entropies) / len(shard.entropies),
        "images": len(shard.images),
        "iterations": shard.recipe.steps,
        "precision": shard.precision,
    }


def _optimise(context: Context[RecoverParams], shard: _Shard, recovery: Recovery) -> Iterator[Event]:
    """Spend the budget of one block."""
    first, steps = not shard.ends, shard.recipe.steps
    every = max(1, steps // CURVE_POINTS) if first else steps
    shown = preview_steps(shard.recipe)
    if first and recovery.step == 0:
        yield from shard.show(recovery.images, 0)
    for told in recovery.run(every=every):
        if first and told.losses is not None:
            yield _metric(told)
        if first and recovery.step in shown:
            yield from shard.show(recovery.images, recovery.step)
        if first and told.injects_into is not None:
            yield from _injection(shard, recovery, told, told.injects_into)
        if told.ends_stage and told.losses is not None:
            shard.last_loss = told.losses[0]
        if recovery.step % max(1, steps // CURVE_POINTS) == 0:
            yield Progress(done=shard.done(recovery), total=shard.total, unit=UNIT)
        if recovery.step < steps:
            yield from context.pause(shard.done(recovery), lambda: shard.state(recovery))


def preview_steps(recipe: Recipe) -> set[int]:
    """After how many iterations the images are shown, beside the ends of stages, which show what is before and after."""
    ends = set(accumulate(recipe.budgets))
    return set(range(0, recipe.steps, max(1, recipe.steps // PREVIEWS))) - ends - {end - 1 for end in ends}


def _injection(shard: _Shard, recovery: Recovery, told: Iteration, size: int) -> Iterator[Event]:
    """The images right before and right after their patches are mixed in: the engine mixes them before the next step."""
    yield from shard.show(recovery.images, told.step)
    yield Injection(x=told.step, alpha=shard.recipe.alpha, size_from=told.size, size_to=size)
    patches = shard.patches(0)
    assert patches is not None  # what is told to be mixed in is there
    yield from shard.show(inject(recovery.images, patches, size=size, alpha=shard.recipe.alpha), told.step + 1)


def _keep(shard: _Shard, recovery: Recovery) -> Iterator[Event]:
    """Store a block that is done, and tell how it ended."""
    block = shard.blocks[len(shard.ends)]
    pixels = to_pixels(denormalised(recovery.images, shard.data.statistics), rounding=shard.recipe.rounding)
    shard.images[shard.kept : shard.kept + block.size] = pixels.cpu()
    if not shard.ends:  # one sheet for each x: those of later images would take its place
        yield from shard.show(recovery.images, shard.recipe.steps)
    shard.entropies.append(shard.entropy_bits(recovery.images))
    shard.ends.append(shard.last_loss)
    if block.stop == shard.data.num_classes:
        ends = shard.ends[-math.ceil(block.stop / shard.recipe.batch) :]
        yield Metric(x=block.ipc, values={"recover.loss_end": sum(ends) / len(ends)})
    yield Progress(done=shard.done(None), total=shard.total, unit=UNIT)


@dataclass(slots=True, kw_only=True)
class _Shard:
    """The blocks of one step, and how far they are."""

    context: Context[RecoverParams]
    data: RealData
    teachers: list[nn.Module]
    observed: list[Observed]  # of each teacher; empty where the recipe asks for nothing of the kind
    recipe: Recipe
    precision: Precision
    sources: Tensor | None  # (I, K, 3, S, S) uint8, of the whole job; None from noise
    images: Tensor  # (I * K, 3, S, S) uint8, on the disk: block after block
    blocks: list[Block]
    ends: list[float]  # total loss at the end of each block that is done, nats
    entropies: list[float]  # mean entropy of the images of each block that is done, bits
    last_loss: float = math.nan

    @classmethod
    def begin(cls, context: Context[RecoverParams]) -> Self:
        """The shard before its first iteration."""
        params, data = context.params, real_data(context.folder("data"))
        precision = devices.resolve(params.precision, context.device)
        count, side = params.ipc_stop - params.ipc_start, data.resolution
        images = arrays.create(context.out / "images.npy", (count, data.num_classes, 3, side, side), torch.uint8)
        return cls(
            context=context,
            data=data,
            teachers=teachers(context.folders("teacher"), context.device, precision),
            observed=[Observed.read(folder, context.device) for folder in context.folders("observed")],
            recipe=params.recipe,
            precision=precision,
            sources=images_of([context.folder("patches")]) if params.recipe.start == "patches" else None,
            images=images.view(-1, 3, side, side),
            blocks=[
                Block(ipc=ipc, start=start, stop=stop)
                for ipc in range(params.ipc_start, params.ipc_stop)
                for start, stop in chunks(data.num_classes, params.recipe.batch)
            ],
            ends=[],
            entropies=[],
        )

    @property
    def kept(self) -> int:
        """Images of the blocks that are done."""
        return sum(block.size for block in self.blocks[: len(self.ends)])

    @property
    def total(self) -> int:
        return self.recipe.steps * len(self.images)

    def done(self, recovery: Recovery | None) -> int:
        """Image-iterations so far, of which `recovery`'s are those of the block under way."""
        under_way = 0 if recovery is None else recovery.step * self.blocks[len(self.ends)].size
        return self.recipe.steps * self.kept + under_way

    def patches(self, index: int) -> Tensor | None:
        """(N, 3, S, S) normalised: what the images of a block start from, if it is not noise."""
        if self.sources is None:
            return None
        block = self.blocks[index]
        pixels = self.sources[block.ipc, block.start : block.stop].to(self.context.device)
        return normalised(pixels, self.data.statistics)

    def recovery(self, index: int) -> Recovery:
        """A block before its first iteration. Its randomness depends on the job's seed, ipc and classes alone."""
        block = self.blocks[index]
        return Recovery(
            teachers=self.teachers,
            patches=self.patches(index),
            labels=torch.arange(block.start, block.stop, device=self.context.device),
            recipe=self.recipe,
            statistics=self.data.statistics,
            seed=self.context.params.seed,
            place=("recover", block.ipc, block.start),
            flip=self.context.params.flip,
            precision=self.precision,
            observed=self.observed,
        )

    def state(self, recovery: Recovery | None) -> State:
        """Everything that the rest of the shard depends on."""
        tensors = {} if recovery is None else under("recovery", recovery.state())
        facts = {"ends": self.ends, "entropies": self.entropies, "last_loss": self.last_loss}
        return {**tensors, "images": self.images[: self.kept]}, facts

    def restore(self, found: Checkpoint | None) -> Recovery | None:
        """Go on from a checkpoint; returns the block under way, if it was taken in the middle of one."""
        if found is None:
            return None
        self.ends, self.entropies = found.facts["ends"], found.facts["entropies"]
        self.last_loss = found.facts["last_loss"]
        self.images[: self.kept] = found.tensors["images"]
        state = taken_from("recovery", found.tensors)
        if not state:
            return None
        recovery = self.recovery(len(self.ends))
        recovery.restore(state)
        return recovery

    def show(self, images: Tensor, x: int) -> Iterator[Event]:
        """A contact sheet of the block under way as it is now, and how much its images tell the teachers."""
        block = self.blocks[len(self.ends)]
        shown = images[:SHOWN_IMAGES]
        columns = sheet_columns(len(shown))
        file = f"previews/{len(self.ends):05d}-{x:06d}.png"
        path = self.context.out / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(contact_sheet(to_pixels(denormalised(shown, self.data.statistics)), columns=columns))
        labels = list(range(block.start, block.start + len(shown)))
        yield Preview(
            x=x,
            total=self.recipe.steps,
            file=file,
            columns=columns,
            tile=sheet_tile(images.shape[2]),
            labels=labels,
            names=[f"{self.data.classes[label]} \u00b7 ipc {block.ipc}" for label in labels],
        )
        if not self.ends:
            yield Metric(x=x, values={"recover.entropy": self.entropy_bits(images)})

    def entropy_bits(self, images: Tensor) -> float:
        """Mean Shannon entropy of the teachers' softmax on (N, 3, S, S) images, in bits."""
        entropies = [entropy_bits(model, images, self.precision) for model in self.teachers]
        return sum(entropies) / len(entropies)


def entropy_bits(model: nn.Module, images: Tensor, precision: Precision) -> float:
    """Mean Shannon entropy of a model's softmax on (N, 3, S, S) normalised images, in bits: the information density."""
    with torch.inference_mode(), computing(precision, images.device):
        chances = model(images.contiguous(memory_format=torch.channels_last)).float().softmax(1)
    return float(torch.special.entr(chances).sum(1).mean()) / math.log(2)


def _metric(told: Iteration) -> Metric:
    assert told.losses is not None
    total, ce, bn = told.losses
    return Metric(
        x=told.step,
        values={"recover.loss": total, "recover.loss_ce": ce, "recover.loss_bn": bn, "recover.lr": told.lr},
    )
