"""Optimises images for a range of ipc indices, in blocks of classes (one image each) that share batch statistics.

As many blocks go through the teachers at once as memory allows: a turn. Leaves images.npy (I, K, 3, S, S) uint8.
I images per class of this shard, K classes, N images of a turn, S pixels a side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from engine import arrays
from engine import device as devices
from engine.checkpoint import Checkpoint, taken_from, under
from engine.context import Context, State, Telling
from engine.data import RealData, chunks, images_of, real_data, teacher_facts, teachers
from engine.events import Event, Injection, Metric, Preview, Progress, Started
from engine.fused import fused
from engine.methods import Recipe
from engine.observed import Observed
from engine.params import RecoverParams
from engine.pixels import denormalised, normalised, to_pixels
from engine.plan.memory import blocks_together
from engine.precision import Precision, computing
from engine.recovery import Iteration, Recovery, can_share, inject
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
    """Turns one after another; the curves and previews over time are those of the first block."""
    devices.forget_peak(context.device)
    shard = _Shard.begin(context)
    resumed = shard.restore(context.resumed())
    yield Started(total=shard.total, unit=UNIT, resumed_at=shard.done(resumed), device=str(context.device))
    while shard.turn < len(shard.turns):
        recovery = resumed or shard.recovery()
        resumed = None
        yield from _optimise(context, shard, recovery)
        yield from _keep(shard, recovery)
        if shard.turn < len(shard.turns):
            yield from context.pause(shard.done(None), lambda: shard.state(None))
    return {
        "loss_end": sum(shard.ends) / len(shard.ends),
        "entropy_bits": sum(shard.entropies) / len(shard.entropies),
        "images": len(shard.images),
        "iterations": shard.recipe.steps,
        "precision": shard.precision,
        "peak_bytes": devices.peak_bytes(context.device),
    }


def _optimise(context: Context[RecoverParams], shard: _Shard, recovery: Recovery) -> Iterator[Event]:
    """Spend the budget of one turn."""
    first, steps = shard.turn == 0, shard.recipe.steps
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
            shard.last_losses = [losses.total for losses in told.losses]
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
    patches = shard.patches()
    assert patches is not None  # what is told to be mixed in is there
    count = shard.turns[0][0].size
    mixed = inject(recovery.images[:count], patches[:count], size=size, alpha=shard.recipe.alpha)
    yield from shard.show(mixed, told.step + 1)


def _keep(shard: _Shard, recovery: Recovery) -> Iterator[Event]:
    """Store the blocks of a turn that is done, and tell how they ended."""
    pixels = to_pixels(denormalised(recovery.images, shard.data.statistics), rounding=shard.recipe.rounding)
    shard.images[shard.kept : shard.kept + len(pixels)] = pixels.cpu()
    if shard.turn == 0:  # one sheet for each x: those of later images would take its place
        yield from shard.show(recovery.images, shard.recipe.steps)
    blocks = shard.turns[shard.turn]
    for block, images, loss in zip(blocks, recovery.images.chunk(len(blocks)), shard.last_losses, strict=True):
        shard.entropies.append(shard.entropy_bits(images))
        shard.ends.append(loss)
        if block.stop == shard.data.num_classes:
            ends = shard.ends[-math.ceil(block.stop / shard.recipe.batch) :]
            yield Metric(x=block.ipc, values={"recover.loss_end": sum(ends) / len(ends)})
    shard.turn += 1
    yield Progress(done=shard.done(None), total=shard.total, unit=UNIT)


@dataclass(slots=True, kw_only=True)
class _Shard:
    """The blocks of one step, in turns, and how far they are."""

    context: Context[RecoverParams]
    data: RealData
    teachers: list[nn.Module]
    observed: list[Observed]  # of each teacher; empty where the recipe asks for nothing of the kind
    recipe: Recipe
    precision: Precision
    sources: Tensor | None  # (I, K, 3, S, S) uint8, of the whole job; None from noise
    images: Tensor  # (I * K, 3, S, S) uint8, on the disk: block after block
    turns: list[tuple[Block, ...]]
    turn: int = 0  # that is under way
    ends: list[float] = field(default_factory=list)  # total loss at the end of each block that is done, nats
    entropies: list[float] = field(default_factory=list)  # mean of the images of each block that is done, bits
    last_losses: list[float] = field(default_factory=list)  # of the turn's blocks

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
            teachers=[fused(model) for model in teachers(context.folders("teacher"), context.device, precision)],
            observed=[Observed.read(folder, context.device) for folder in context.folders("observed")],
            recipe=params.recipe,
            precision=precision,
            sources=images_of([context.folder("patches")]) if params.recipe.start == "patches" else None,
            images=images.view(-1, 3, side, side),
            turns=_turns(context, data, precision),
        )

    @property
    def kept(self) -> int:
        """Images of the turns that are done."""
        return sum(block.size for blocks in self.turns[: self.turn] for block in blocks)

    @property
    def total(self) -> int:
        return self.recipe.steps * len(self.images)

    def done(self, recovery: Recovery | None) -> int:
        """Image-iterations so far, of which `recovery`'s are those of the turn under way."""
        under_way = 0 if recovery is None else recovery.step * len(recovery.images)
        return self.recipe.steps * self.kept + under_way

    def patches(self) -> Tensor | None:
        """(N, 3, S, S) normalised: what the images of the turn start from, if it is not noise."""
        if self.sources is None:
            return None
        pixels = torch.cat([self.sources[block.ipc, block.start : block.stop] for block in self.turns[self.turn]])
        return normalised(pixels.to(self.context.device), self.data.statistics)

    def recovery(self) -> Recovery:
        """The turn before its first iteration. A block's randomness depends on the job's seed, ipc and classes alone."""
        blocks = self.turns[self.turn]
        labels = torch.cat([torch.arange(block.start, block.stop) for block in blocks])
        return Recovery(
            teachers=self.teachers,
            patches=self.patches(),
            labels=labels.to(self.context.device),
            recipe=self.recipe,
            statistics=self.data.statistics,
            seed=self.context.params.seed,
            places=[("recover", block.ipc, block.start) for block in blocks],
            flip=self.context.params.flip,
            precision=self.precision,
            observed=self.observed,
        )

    def state(self, recovery: Recovery | None) -> State:
        """Everything that the rest of the shard depends on."""
        tensors = {} if recovery is None else under("recovery", recovery.state())
        facts = {
            "turn": self.turn,
            "ends": self.ends,
            "entropies": self.entropies,
            "last_losses": self.last_losses,
        }
        return {**tensors, "images": self.images[: self.kept]}, facts

    def restore(self, found: Checkpoint | None) -> Recovery | None:
        """Go on from a checkpoint; returns the turn under way, if it was taken in the middle of one."""
        if found is None:
            return None
        self.turn, self.last_losses = found.facts["turn"], found.facts["last_losses"]
        self.ends, self.entropies = found.facts["ends"], found.facts["entropies"]
        self.images[: self.kept] = found.tensors["images"]
        state = taken_from("recovery", found.tensors)
        if not state:
            return None
        recovery = self.recovery()
        recovery.restore(state)
        return recovery

    def show(self, images: Tensor, x: int) -> Iterator[Event]:
        """A contact sheet of the first block as it is now, and how much its images tell the teachers."""
        block = self.turns[0][0]
        images = images[: block.size]
        shown = images[:SHOWN_IMAGES]
        columns = sheet_columns(len(shown))
        file = f"previews/{x:06d}.png"
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
        yield Metric(x=x, values={"recover.entropy": self.entropy_bits(images)})

    def entropy_bits(self, images: Tensor) -> float:
        """Mean Shannon entropy of the teachers' softmax on (N, 3, S, S) images, in bits."""
        entropies = [entropy_bits(model, images, self.precision) for model in self.teachers]
        return sum(entropies) / len(entropies)


def _turns(context: Context[RecoverParams], data: RealData, precision: Precision) -> list[tuple[Block, ...]]:
    """The step's blocks in order, those that go through the teachers at once together: they are of one size."""
    params = context.params
    blocks = [
        Block(ipc=ipc, start=start, stop=stop)
        for ipc in range(params.ipc_start, params.ipc_stop)
        for start, stop in chunks(data.num_classes, params.recipe.batch)
    ]
    networks = [teacher_facts(folder)["network"] for folder in context.folders("teacher")]
    shared, side = can_share(params.recipe, len(networks), precision), max(params.recipe.sizes)
    turns: list[tuple[Block, ...]] = []
    for size, alike in groupby(blocks, key=lambda block: block.size):
        run = list(alike)
        most = blocks_together(networks, side=side, block=size) if shared else 1
        turns += [tuple(run[start:stop]) for start, stop in chunks(len(run), most)]
    return turns


def entropy_bits(model: nn.Module, images: Tensor, precision: Precision) -> float:
    """Mean Shannon entropy of a model's softmax on (N, 3, S, S) normalised images, in bits: the information density."""
    with torch.inference_mode(), computing(precision, images.device):
        chances = model(images.contiguous(memory_format=torch.channels_last)).float().softmax(1)
    return float(torch.special.entr(chances).sum(1).mean()) / math.log(2)


def _metric(told: Iteration) -> Metric:
    assert told.losses is not None
    total, ce, bn = told.losses[0]
    return Metric(
        x=told.step,
        values={"recover.loss": total, "recover.loss_ce": ce, "recover.loss_bn": bn, "recover.lr": told.lr},
    )
