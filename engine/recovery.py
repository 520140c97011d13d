"""FADRM's loop for one block of images: optimise, resize, mix the patches back in, and again.

N images (one per class of the block), C channels, H W pixels, K classes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from engine.augment import View, apply_view, draw_view
from engine.datasets import Statistics
from engine.errors import Diverged
from engine.losses import RecoverLoss, recover_loss
from engine.methods import Recipe as MethodRecipe
from engine.models import frozen
from engine.pixels import limits, resized
from engine.precision import Precision, computing, gradient_scaler, restore_scaler, scaler_state
from engine.randomness import generator
from engine.schedule import cosine_lr
from engine.statistics import BatchNormStatistics

ADAM_EPS = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the budget at one resolution."""

    size: int  # px
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the images, beside teachers, patches, labels and seed. Defaults: the authors' scripts."""

    stages: tuple[Stage, ...]
    alpha: float = 0.5  # weight of the optimised image when its patch is mixed in
    lr: float = 0.25
    r_bn: float = 0.01
    first_bn: float = 10.0
    betas: tuple[float, float] = (0.5, 0.9)
    crop: bool = True
    flip: bool = True
    jitter: int = 4  # px
    precision: Precision = "fp32"

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_of(self, step: int) -> int:
        """The stage that iteration `step` belongs to."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index
            step -= stage.steps
        raise IndexError(f"the budget is {self.steps} iterations")


def recipe_of(method: MethodRecipe, *, flip: bool, precision: Precision) -> Recipe:
    """The recipe that a step is told, as the loop wants it."""
    return Recipe(
        stages=tuple(Stage(size=size, steps=steps) for size, steps in zip(method.sizes, method.budgets, strict=True)),
        alpha=method.alpha,
        lr=method.lr,
        r_bn=method.r_bn,
        first_bn=method.first_bn,
        betas=method.betas,
        crop=method.crop,
        flip=flip,
        jitter=method.jitter,
        precision=precision,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """What one iteration did. The losses are those before its step, in nats; None where they were not fetched."""

    step: int  # counted from 0 over the whole budget
    stage: int
    size: int  # px
    teacher: int
    lr: float
    losses: tuple[float, float, float] | None  # total, cross-entropy, batch norm
    ends_stage: bool
    injects_into: int | None  # px; the patches are mixed in before the next iteration, at this resolution


class Recovery:
    """A block of images under optimisation. Its state can be taken out and put back between any two iterations.

    teachers: put into eval mode, without gradients, channels last; used in turn. patches: (N, C, H, W) normalised.
    labels: (N,) classes. place: what tells this block from others (ipc, block). views: the crop, flip and roll of
    iteration t at S px, views(t, S); by default drawn from (seed, place, t) and nothing else.
    """

    def __init__(  # noqa: PLR0913 - what a block is made of
        self,
        *,
        teachers: Sequence[nn.Module],
        patches: Tensor,
        labels: Tensor,
        recipe: Recipe,
        statistics: Statistics,
        seed: int,
        place: tuple[str | int, ...],
        views: Callable[[int, int], View | None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.step = 0  # iterations done
        self._teachers = [frozen(teacher).to(memory_format=torch.channels_last) for teacher in teachers]
        self._statistics = [BatchNormStatistics(teacher) for teacher in self._teachers]
        self._patches, self._labels = patches, labels
        self._low, self._high = limits(statistics, patches.device)
        self._views = views or partial(recovery_view, recipe, seed, place)
        self._scaler = gradient_scaler(recipe.precision, patches.device)
        self._open(0, resized(patches, recipe.stages[0].size))

    @property
    def images(self) -> Tensor:
        """(N, C, S, S) normalised, as they are now: S is the size of the stage. Not to be written to."""
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
        return {
            "images": self._images.detach().clone(),
            "progress": torch.tensor([self.step, self._stage]),
            **{f"adam.{name}": adam[name].clone() for name in ("step", "exp_avg", "exp_avg_sq") if name in adam},
            **scaler_state(self._scaler),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken: the images will be the same to the byte."""
        self.step, stage = (int(value) for value in state["progress"])
        self._open(stage, state["images"].to(self._patches.device))
        adam = {name.removeprefix("adam."): value for name, value in state.items() if name.startswith("adam.")}
        if adam:
            self._adam.state[self._images] = {
                name: value.to(self._patches.device, copy=True) for name, value in adam.items()
            }
        restore_scaler(self._scaler, state)

    def _open(self, stage: int, images: Tensor) -> None:
        """Begin a stage: the images as given, and an Adam that remembers nothing."""
        self._stage = stage
        self._images = images.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
        self._adam = torch.optim.Adam(
            [self._images], lr=self.recipe.lr, betas=self.recipe.betas, eps=ADAM_EPS, fused=True
        )

    def _iterate(self, every: int) -> Iteration:
        step, stage = self.step, self.recipe.stage_of(self.step)
        if stage != self._stage:
            size = self.recipe.stages[stage].size
            self._open(stage, inject(self.images, self._patches, size=size, alpha=self.recipe.alpha))
        lr = cosine_lr(step, steps=self.recipe.steps, lr=self.recipe.lr)
        teacher = step % len(self._teachers)
        loss = self._descend(teacher, lr)
        self.step = step + 1
        last = self.step == self.recipe.steps
        ends_stage = last or self.recipe.stage_of(self.step) != stage
        return Iteration(
            step=step,
            stage=stage,
            size=self.recipe.stages[stage].size,
            teacher=teacher,
            lr=lr,
            losses=self._told(loss, ends_stage) if step % every == 0 or ends_stage else None,
            ends_stage=ends_stage,
            injects_into=self.recipe.stages[stage + 1].size if ends_stage and not last else None,
        )

    def _descend(self, teacher: int, lr: float) -> RecoverLoss:
        """One step of Adam and the clip behind it."""
        size = self.recipe.stages[self._stage].size
        view = self._views(self.step, size)
        inputs = self._images if view is None else apply_view(self._images, view, size)
        loss = objective(self._teachers[teacher], self._statistics[teacher], inputs, self._labels, self.recipe)
        self._adam.param_groups[0]["lr"] = lr
        self._adam.zero_grad()
        torch.autograd.backward(self._scaler.scale(loss.total))
        self._scaler.step(self._adam)
        self._scaler.update()
        with torch.no_grad():
            torch.clamp(self._images, self._low, self._high, out=self._images)
        return loss

    def _told(self, loss: RecoverLoss, ends_stage: bool) -> tuple[float, float, float]:
        """The losses as numbers, fetched from the device at once."""
        whole = torch.isfinite(self.images).all().float() if ends_stage else torch.ones_like(loss.total)
        total, ce, bn, finite = torch.stack([loss.total, loss.ce, loss.bn, whole]).detach().double().tolist()
        if not finite or not math.isfinite(total):
            raise Diverged("recovery", self.step - 1)
        return total, ce, bn


def recovery_view(recipe: Recipe, seed: int, place: tuple[str | int, ...], step: int, size: int) -> View | None:
    """The crop, flip and roll of one iteration: they depend on its place, not on how recovery got there."""
    if not (recipe.crop or recipe.flip or recipe.jitter):
        return None
    chance = generator(seed, *place, step)
    return draw_view(size=size, crop=recipe.crop, flip=recipe.flip, jitter=recipe.jitter, generator=chance)


def inject(images: Tensor, patches: Tensor, *, size: int, alpha: float) -> Tensor:
    """The residual connection: images and the original patches, both (N, C, H, W), resized to size px and mixed.

    alpha: weight of the images. Source: arXiv 2506.24125 eq. 9 and 10; FADRM recover.py.
    """
    return alpha * resized(images, size) + (1 - alpha) * resized(patches, size)


def objective(
    teacher: nn.Module, statistics: BatchNormStatistics, inputs: Tensor, labels: Tensor, recipe: Recipe
) -> RecoverLoss:
    """What one teacher, whose batch-norm layers are listened to, says about inputs (N, C, S, S) of classes (N,)."""
    with computing(recipe.precision, inputs.device), statistics:
        logits = teacher(inputs.contiguous(memory_format=torch.channels_last))
    return recover_loss(logits, labels, statistics.distances(), r_bn=recipe.r_bn, first_bn=recipe.first_bn)
