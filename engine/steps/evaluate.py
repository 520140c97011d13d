"""Train one student from scratch on the images, and test it on the real test set. Its weights are not kept.

E epochs, N images (ipc after ipc, classes ascending), K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engine import arrays
from engine import device as devices
from engine.context import Context, Result, State, Telling
from engine.data import RealData, fitted, images_of, real_data, resident
from engine.events import Metric, Progress, Started
from engine.labels import PLAN_ARRAYS, LabelPlan, draw_plan
from engine.models import build
from engine.params import EvaluateParams
from engine.randomness import seed_of
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
            values["evaluate.top1"] = course.test()
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
    soft: dict[str, Tensor]  # plans and logits of each epoch, on the disk; empty for hard labels
    test_images: Tensor
    student: Student
    curve: list[tuple[int, float]]  # epoch (counted from 0), top-1 in %

    @classmethod
    def begin(cls, context: Context[EvaluateParams]) -> Self:
        """Fresh weights, or those of a checkpoint."""
        params, device = context.params, context.device
        data, images = real_data(context.folder("data")), images_of(context.folders("images"))
        names = (*PLAN_ARRAYS, "logits") if params.labels == "soft" else ()
        course = cls(
            params=params,
            device=device,
            data=data,
            images=fitted(images.flatten(0, 1), device),
            labels=torch.arange(data.num_classes).repeat(len(images)),
            soft={name: arrays.read(context.folder("labels") / f"{name}.npy") for name in names},
            test_images=resident(context.folder("data"), "test", device),
            student=new_student(params, data, device),
            curve=[],
        )
        found = context.resumed()
        if found is not None:
            course.student.restore(found.tensors)
            course.curve = [(epoch, top1) for epoch, top1 in found.facts["curve"]]
        return course

    def train(self) -> float:
        """One epoch; returns its mean loss, nats. Raises Diverged."""
        plan = self._plan(self.student.epoch)
        return self.student.train_epoch(self.images, plan, self._criterion(plan), statistics=self.data.statistics)

    def test(self) -> float:
        """Share of the real test images that the student recognises now, %."""
        accuracy = top1_pct(
            self.student.model,
            self.test_images,
            self.data.test_labels,
            statistics=self.data.statistics,
            precision=self.student.recipe.precision,
            device=self.device,
        )
        self.curve.append((self.student.epoch - 1, accuracy))
        return accuracy

    def state(self) -> State:
        """Everything that the next epochs depend on."""
        return self.student.state(), {"curve": self.curve}

    def result(self) -> Result:
        """Last and best accuracy. The best is chosen on the test set, as papers do; the last is not chosen at all."""
        best_epoch, best = max(self.curve, key=lambda point: (point[1], -point[0]))
        return {
            "top1_last_pct": self.curve[-1][1],
            "top1_best_pct": best,
            "best_epoch": best_epoch,
            "epochs": self.student.epoch,
            "curve": self.curve,
            "precision": self.student.recipe.precision,
        }

    def _plan(self, epoch: int) -> LabelPlan:
        """The batches of an epoch: those that were labelled, or, without soft labels, the same drawn again."""
        plan = self.params.plan
        if self.soft:
            return LabelPlan.of({name: self.soft[name][epoch] for name in PLAN_ARRAYS}, batch_size=plan.batch_size)
        return draw_plan(
            len(self.images),
            batch_size=plan.batch_size,
            side=self.data.resolution,
            seed=self.params.seed,
            epoch=epoch,
            flip=self.params.flip,
            cutmix=plan.cutmix,
        )

    def _criterion(self, plan: LabelPlan) -> Criterion:
        if self.soft:
            logits = self.soft["logits"][self.student.epoch]
            return soft_criterion(logits, temperature=self.params.temperature, device=self.device)
        return hard_criterion(self.labels, plan, side=self.data.resolution, device=self.device)


def new_student(params: EvaluateParams, data: RealData, device: torch.device) -> Student:
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
