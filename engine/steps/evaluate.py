"""Train one student from scratch on the images, and test it on the real test set. Its weights are not kept.

E epochs, N images (ipc after ipc, classes ascending), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from engine import device as devices
from engine.context import Context, Result, State, Telling
from engine.data import RealData, fitted, images_of, real_data, resident, teachers
from engine.events import Metric, Progress, Started
from engine.label_store import LabelMaker, LabelStore
from engine.labels import LabelPlan
from engine.models import build
from engine.params import ContinualParams, EvaluateParams
from engine.randomness import seed_of
from engine.spec import stored_epochs
from engine.steps.relabel import drawn
from engine.students import Criterion, Student, StudentRecipe, hard_criterion, soft_criterion, top1_pct

CURVE_POINTS = 100  # of the loss


def evaluate(context: Context[EvaluateParams]) -> Telling:
    """Epoch after epoch, testing every few, and after the last."""
    course = _Course.begin(context)
    epochs = context.params.plan.epochs
    yield Started(total=epochs, unit="epochs", resumed_at=course.student.epoch, device=str(context.device))
    for epoch in range(course.student.epoch, epochs):
        values = {}
        loss = course.train()
        if epoch % max(1, epochs // CURVE_POINTS) == 0 or epoch + 1 == epochs:
            values["evaluate.loss"] = loss
        if (epoch + 1) % context.params.every == 0 or epoch + 1 == epochs:
            values |= course.test()
        if values:
            yield Metric(x=epoch, values=values)
            yield Progress(done=epoch + 1, total=epochs, unit="epochs")
        if epoch + 1 < epochs:
            yield from context.pause(epoch + 1, course.state)
    return course.result()


@dataclass(slots=True, kw_only=True)
class _Course:
    """A student, what it learns from, and how it did."""

    params: EvaluateParams
    device: torch.device
    data: RealData
    images: Tensor  # (N, 3, S, S) uint8
    labels: Tensor  # (N,) int64
    soft: LabelStore | LabelMaker | None  # None for hard labels
    test_images: Tensor
    valid: Tensor  # (V,) int64: the held-back training images, which choose the best epoch
    student: Student
    curve: list[tuple[int, float, float | None]]  # epoch (counted from 0), top-1 in % on test and held-back images

    @classmethod
    def begin(cls, context: Context[EvaluateParams]) -> Self:
        """Fresh weights, or those of a checkpoint."""
        params, device = context.params, context.device
        data, images = real_data(context.folder("data")), images_of(context.folders("images"))[: params.take]
        held_back = [data.held_back(label, params.valid_per_class) for label in range(data.num_classes)]
        pixels = fitted(images.flatten(0, 1), device)
        course = cls(
            params=params,
            device=device,
            data=data,
            images=pixels,
            labels=torch.arange(data.num_classes).repeat(len(images)),
            soft=_soft_labels(context, data, pixels),
            test_images=resident(context.folder("data"), "test", device),
            valid=torch.cat(held_back),
            student=new_student(params, data, device),
            curve=[],
        )
        found = context.resumed()
        if found is not None:
            course.student.restore(found.tensors)
            course.curve = [(epoch, top1, valid) for epoch, top1, valid in found.facts["curve"]]
        return course

    def train(self) -> float:
        """One epoch; returns its mean loss, nats. Raises Diverged."""
        plan, criterion = self._lesson(self.student.epoch)
        return self.student.train_epoch(self.images, plan, criterion, statistics=self.data.statistics)

    def test(self) -> dict[str, float]:
        """Share of the real test images that the student recognises now, and of the held-back ones, %: as metrics."""
        top1 = self._top1(self.test_images, self.data.test_labels)
        if not len(self.valid):
            self.curve.append((self.student.epoch - 1, top1, None))
            return {"evaluate.top1": top1}
        chosen = self._top1(self.data.train, self.data.train_labels, self.valid)
        self.curve.append((self.student.epoch - 1, top1, chosen))
        return {"evaluate.top1": top1, "evaluate.valid_top1": chosen}

    def _top1(self, images: Tensor, labels: Tensor, rows: Tensor | None = None) -> float:
        return top1_pct(
            self.student.model,
            images,
            labels,
            statistics=self.data.statistics,
            precision=self.student.recipe.precision,
            device=self.device,
            rows=rows,
        )

    def state(self) -> State:
        """Everything that the next epochs depend on."""
        return self.student.state(), {"curve": self.curve}

    def result(self) -> Result:
        """Last, chosen and best accuracy on the test set.

        The last epoch is not chosen at all; the chosen one is the best on held-back real images (None without any); the
        best is chosen on the test set itself, as papers do.
        """
        best = max(self.curve, key=lambda point: (point[1], -point[0]))
        chosen = max(self.curve, key=lambda point: (point[2] or 0.0, -point[0])) if len(self.valid) else (None, None)
        return {
            "top1_last_pct": self.curve[-1][1],
            "top1_chosen_pct": chosen[1],
            "chosen_epoch": chosen[0],
            "top1_best_pct": best[1],
            "best_epoch": best[0],
            "epochs": self.student.epoch,
            "curve": [(epoch, top1) for epoch, top1, _ in self.curve],
            "precision": self.student.recipe.precision,
        }

    def _lesson(self, epoch: int) -> tuple[LabelPlan, Criterion]:
        """What the student sees in an epoch, and what it learns from it."""
        if self.soft is None:
            params, side = self.params, self.data.resolution
            plan = drawn(params.plan, len(self.images), epoch, side=side, seed=params.seed, flip=params.flip)
            return plan, hard_criterion(self.labels, plan, side=self.data.resolution, device=self.device)
        plan, logits = self.soft.epoch(epoch)
        return plan, soft_criterion(logits, temperature=self.params.temperature, device=self.device)


def _soft_labels(context: Context[EvaluateParams], data: RealData, images: Tensor) -> LabelStore | LabelMaker | None:
    """Where soft labels come from; None for hard ones."""
    params, plan = context.params, context.params.plan
    if params.labels == "hard":
        return None
    if plan.recipe_only:
        return label_maker(context, data, images)
    folder = context.folder("labels")
    return LabelStore.open(folder, classes=data.num_classes, batch_size=plan.batch_size, seed=params.seed)


def label_maker(context: Context[Any], data: RealData, images: Tensor) -> LabelMaker:
    """The step's teachers, who label (N, 3, S, S) images as they are shown."""
    params, plan = context.params, context.params.plan
    precision = devices.resolve(params.precision, context.device)
    return LabelMaker(
        teachers=teachers(context.folders("teacher"), context.device, precision),
        images=images,
        draw=partial(drawn, plan, len(images), side=data.resolution, seed=params.seed, flip=params.flip),
        batch_size=plan.batch_size,
        pool=stored_epochs(plan),
        batch_norm=plan.statistics,
        statistics=data.statistics,
        precision=precision,
        device=context.device,
        seed=params.seed,
    )


def new_student(params: EvaluateParams | ContinualParams, data: RealData, device: torch.device) -> Student:
    """A student whose weights depend on the job's seed and its run alone."""
    seed = seed_of(params.seed, "student", params.run)
    recipe = StudentRecipe(
        epochs=params.plan.epochs,
        lr=params.lr,
        eta=params.eta,
        weight_decay=params.weight_decay,
        precision=devices.resolve(params.precision, device),
    )
    model = build(params.student, num_classes=data.num_classes, resolution=data.resolution, seed=seed)
    return Student(model, recipe, device=device, seed=seed)
