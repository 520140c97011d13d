"""The loop of every method that optimises, for some blocks of images: look, descend, and between stages resize and mix.

A block is what shares statistics, a crop, a flip and a roll: several go through a teacher as one batch, and each comes to
what it would alone. G blocks, N images of them all (one per class of each block), C channels, H W pixels, K classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engine.augment import View, apply_views, draw_views, view_weights
from engine.committee import Vote, votes
from engine.datasets import Statistics
from engine.errors import Diverged
from engine.graphs import Replays, rate, set_rate
from engine.losses import RecoverLoss, committee_loss, flatness_penalties, recover_loss
from engine.matching import Matching
from engine.methods import Recipe
from engine.models import frozen
from engine.observed import Observed
from engine.pixels import limits, resized
from engine.precision import Precision, computing, gradient_scaler, restore_scaler, scaler_state
from engine.randomness import generator
from engine.schedule import cosine_lr

ADAM_EPS = 1e-8
AVERAGE_KEPT = 0.99  # of the images' moving average, an iteration (EDC, arXiv 2404.13733: ema_alpha)
CHANNELS = 3


Place = tuple[str | int, ...]  # what tells a block from others: of the job's randomness it has its own


class Losses(NamedTuple):
    """Of one block, nats."""

    total: float
    ce: float  # cross-entropy
    bn: float  # distance of statistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """What one iteration did. The losses are those before its step; None where they were not fetched."""

    step: int  # counted from 0 over the whole budget
    stage: int
    size: int  # px
    teachers: tuple[int, ...]  # that were asked
    lr: float
    losses: tuple[Losses, ...] | None  # of each block
    ends_stage: bool
    injects_into: int | None  # px; the patches are mixed in before the next iteration, at this resolution


class Recovery:
    """Blocks of images under optimisation. Their state can be taken out and put back between any two iterations.

    teachers: put into eval mode, without gradients, channels last. patches: (N, C, H, W) normalised, block after block;
    None from noise. labels: (N,) classes. places: of each block, which all have as many images; more than one where
    `can_share` says so. observed: of each teacher, where the recipe asks for more than batch norm remembers.
    views: the crop, flip and roll of iteration t at S px, views(t, S), of each block; by default drawn from (seed, place, t)
    and nothing else.
    """

    def __init__(  # noqa: PLR0913 - what a block is made of
        self,
        *,
        teachers: Sequence[nn.Module],
        patches: Tensor | None,
        labels: Tensor,
        recipe: Recipe,
        statistics: Statistics,
        seed: int,
        places: Sequence[Place],
        flip: bool = True,
        precision: Precision = "fp32",
        observed: Sequence[Observed] = (),
        views: Callable[[int, int], Sequence[View]] | None = None,
    ) -> None:
        self.recipe = recipe
        self.step = 0  # iterations done
        self._teachers = [frozen(teacher).to(memory_format=torch.channels_last) for teacher in teachers]
        known = observed or [Observed()] * len(teachers)
        self._matchings = [
            Matching(teacher, recipe, labels, seen, blocks=len(places))
            for teacher, seen in zip(self._teachers, known, strict=True)
        ]
        priors_pct = [seen.crops_top1_pct or 0.0 for seen in known]
        self._votes = partial(votes, recipe.teachers, priors_pct=priors_pct, seed=seed, place=places[0])
        self._patches, self._labels, self._precision = patches, labels, precision
        self._low, self._high = limits(statistics, labels.device)
        self._views = views or partial(recovery_views, recipe, flip, seed, places)
        self._scaler = gradient_scaler(precision, labels.device)
        self._replays = Replays(labels.device, precision)
        size = recipe.sizes[0]
        self._open(0, noise(labels, size, seed, places) if patches is None else resized(patches, size))

    @property
    def images(self) -> Tensor:
        """(N, C, S, S) normalised, block after block, as they are now: S is the size of the stage. Not to be written to."""
        return self._images.detach()

    def run(self, *, every: int = 1) -> Iterator[Iteration]:
        """Go on until the budget is spent, telling of each iteration, and of its losses every `every` iterations.

        Raises Diverged when a loss that is told, or an image at the end of a stage, is not finite.
        """
        while self.step < self.recipe.steps:
            yield self._iterate(every)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next iterations depend on: for safetensors, and for `restore`."""
        adam = self._adam.state[self._images]
        average = {} if self._average is None else {"average": self._average.clone()}
        return {
            **average,
            "images": self._images.detach().clone(),
            "progress": torch.tensor([self.step, self._stage]),
            **{f"adam.{name}": adam[name].clone() for name in ("step", "exp_avg", "exp_avg_sq") if name in adam},
            **scaler_state(self._scaler),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken: the images will be the same to the byte."""
        self.step, stage = (int(value) for value in state["progress"])
        device = self._labels.device
        self._open(stage, state["images"].to(device))
        if self._average is not None:
            self._average.copy_(state["average"])
        adam = {name.removeprefix("adam."): value for name, value in state.items() if name.startswith("adam.")}
        if adam:
            self._adam.state[self._images] = {name: value.to(device, copy=True) for name, value in adam.items()}
        restore_scaler(self._scaler, state)

    def _open(self, stage: int, images: Tensor) -> None:
        """Begin a stage: the images as given, and an Adam and a moving average that remember nothing."""
        self._stage = stage
        self._replays.forget()
        self._images = images.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self._average: Tensor | None = self.images.clone() if self.recipe.flatness else None
        self._adam = torch.optim.Adam(
            [self._images],
            lr=rate(self.recipe.lr, images.device),
            betas=self.recipe.betas,
            eps=ADAM_EPS,
            fused=True,
            capturable=self._replays.wanted,
        )

    def _iterate(self, every: int) -> Iteration:
        step, stage = self.step, self.recipe.stage_of(self.step)
        if stage != self._stage:
            self._open(stage, self._carried(self.recipe.sizes[stage]))
        lr = cosine_lr(step, steps=self.recipe.steps, lr=self.recipe.lr)
        asked = self._votes(step)
        loss = self._descend(asked, lr)
        self.step = step + 1
        last = self.step == self.recipe.steps
        ends_stage = last or self.recipe.stage_of(self.step) != stage
        return Iteration(
            step=step,
            stage=stage,
            size=self.recipe.sizes[stage],
            teachers=tuple(vote.teacher for vote in asked),
            lr=lr,
            losses=self._told(loss, ends_stage) if step % every == 0 or ends_stage else None,
            ends_stage=ends_stage,
            injects_into=self.recipe.sizes[stage + 1] if ends_stage and not last and self.recipe.alpha < 1 else None,
        )

    def _carried(self, size: int) -> Tensor:
        """(N, C, size, size): the images as the next stage begins with them."""
        if self._patches is None:
            return resized(self.images, size)
        return inject(self.images, self._patches, size=size, alpha=self.recipe.alpha)

    def _descend(self, asked: tuple[Vote, ...], lr: float) -> RecoverLoss:
        """One step of Adam and the clip behind it."""
        size = self.recipe.sizes[self._stage]
        views = self._views(self.step, size)
        weights = view_weights(views, self._images, size) if views else ()
        set_rate(self._adam, lr)
        total, ce, bn = self._replays.do(self._update, self._changed, asked, *weights)
        return RecoverLoss(total=total, ce=ce, bn=bn)

    def _update(self, asked: Sequence[Vote], *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `_descend` does on the device. weights: of the crop, flip and roll of each block; none to look at all."""
        losses = [self._loss(vote.teacher, weights) for vote in asked]
        loss = losses[0] if len(asked) == 1 else committee_loss(losses, [vote.weight for vote in asked])
        if self._average is not None:
            self._average.lerp_(self.images, 1 - AVERAGE_KEPT)
        self._adam.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss.total.sum()))
        self._scaler.step(self._adam)
        self._scaler.update()
        with torch.no_grad():
            torch.clamp(self._images, self._low, self._high, out=self._images)
        return loss.total.detach(), loss.ce.detach(), loss.bn.detach()

    def _changed(self) -> list[Tensor]:
        """All that `_update` changes."""
        average = [] if self._average is None else [self._average]
        return [self.images, *average, *self._adam.state[self._images].values()]

    def _loss(self, teacher: int, weights: Sequence[Tensor]) -> RecoverLoss:
        """What one teacher says about the images, and how much it differs from what it says of their moving average."""
        model, matching = self._teachers[teacher], self._matchings[teacher]
        inputs = apply_views(self._images, *weights) if weights else self._images
        logits, loss = objective(model, matching, inputs, self._labels, self.recipe, self._precision)
        if self._average is None:
            return loss
        seen = apply_views(self._average, *weights) if weights else self._average
        with torch.no_grad(), computing(self._precision, inputs.device):
            average = model(seen.contiguous(memory_format=torch.channels_last))
        penalty = self.recipe.flatness * flatness_penalties(logits, average, blocks=len(loss.total))
        return RecoverLoss(total=loss.total + penalty, ce=loss.ce, bn=loss.bn)

    def _told(self, loss: RecoverLoss, ends_stage: bool) -> tuple[Losses, ...]:
        """The losses as numbers, fetched from the device at once."""
        whole = torch.isfinite(self.images).all().float() if ends_stage else loss.total.new_ones(())
        rows = torch.stack([loss.total, loss.ce, loss.bn, whole.expand_as(loss.total)], 1).detach().double().tolist()
        told = tuple(Losses(*row[:3]) for row in rows)
        if not rows[0][3] or not all(math.isfinite(losses.total) for losses in told):
            raise Diverged("recovery", self.step - 1)
        return told


def can_share(recipe: Recipe, teachers: int, precision: Precision) -> bool:
    """Whether blocks may go through the teachers as one batch, and each still come to what it would alone.

    Not where each draws whom it asks, nor where an overflow of one (fp16) would hold up the others.
    """
    return (recipe.teachers == "turns" or teachers == 1) and precision != "fp16"


def noise(labels: Tensor, size: int, seed: int, places: Sequence[Place]) -> Tensor:
    """(N, C, size, size) of a standard normal distribution in normalised space, as SRe2L's data_synthesis.py starts."""
    count = len(labels) // len(places)
    chances = [generator(seed, *place, "noise") for place in places]
    return torch.cat([torch.randn(count, CHANNELS, size, size, generator=chance) for chance in chances]).to(
        labels.device
    )


def recovery_views(
    recipe: Recipe, flip: bool, seed: int, places: Sequence[Place], step: int, size: int
) -> tuple[View, ...]:
    """Each block's crop, flip and roll in one iteration: they depend on its place, not on how recovery got there.

    None at all where the recipe has no augmentation.
    """
    if not (recipe.crop or flip or recipe.jitter):
        return ()
    return tuple(
        draw_views(
            [generator(seed, *place, step) for place in places],
            size=size,
            crop=recipe.crop,
            flip=flip,
            jitter=recipe.jitter,
            least_crop=recipe.smallest_crop(step),
        )
    )


def inject(images: Tensor, patches: Tensor, *, size: int, alpha: float) -> Tensor:
    """The residual connection: images and the original patches, both (N, C, H, W), resized to size px and mixed.

    alpha: weight of the images. Source: arXiv 2506.24125 eq. 9 and 10; FADRM recover.py.
    """
    return alpha * resized(images, size) + (1 - alpha) * resized(patches, size)


def objective(
    teacher: nn.Module,
    matching: Matching,
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    precision: Precision = "fp32",
) -> tuple[Tensor, RecoverLoss]:
    """What one teacher, whose layers are listened to, says about inputs (N, C, S, S) of classes (N,): (N, K) logits."""
    with computing(precision, inputs.device), matching:
        logits = teacher(inputs.contiguous(memory_format=torch.channels_last))
    return logits, recover_loss(logits, labels, matching.distance(), r_bn=recipe.r_bn)
