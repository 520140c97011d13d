"""Class-incremental learning on the distilled images (arXiv 2506.24125 figure 6).

The classes come in groups, in an order drawn by the job's seed. With each group a student begins anew on the distilled
images of all classes so far (the protocol of DM and SRe2L, after GDumb), labelled as they are shown by the job's teachers,
whose logits count for these classes only; it is tested on the real test images of the same classes.
G groups, N images of the classes so far, K classes in all, k of them so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from engine.context import Context, Result, State, Telling
from engine.data import RealData, fitted, images_of, real_data
from engine.events import Metric, Progress, Started
from engine.label_store import LabelMaker
from engine.params import ContinualParams
from engine.randomness import generator
from engine.steps.evaluate import label_maker, new_student
from engine.students import Criterion, Distillation, Student, top1_pct


def continual(context: Context[ContinualParams]) -> Telling:
    """Group after group, epoch after epoch."""
    lessons = _Lessons.begin(context)
    yield Started(total=lessons.total, unit="epochs", resumed_at=lessons.done, device=str(context.device))
    while len(lessons.curve) < len(lessons.groups):
        lessons.train()
        if lessons.is_learnt:
            yield Metric(x=lessons.seen, values={"continual.top1": lessons.test()})
            lessons.open_group(context)
        yield Progress(done=lessons.done, total=lessons.total, unit="epochs")
        if lessons.done < lessons.total:
            yield from context.pause(lessons.done, lessons.state)
    return lessons.result()


class _Restricted(nn.Module):
    """A network that answers for some classes only, in the order given."""

    def __init__(self, model: nn.Module, classes: Tensor) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits[:, self.classes]


@dataclass(slots=True, kw_only=True)
class _Lessons:
    """The group under way, and how students did on those before it."""

    params: ContinualParams
    device: torch.device
    data: RealData
    images: Tensor  # (I, K, 3, S, S) uint8
    groups: list[Tensor]  # the classes so far with each group, (k,) int64
    curve: list[tuple[int, float]]  # classes so far, top-1 in %
    student: Student
    loss: _Among
    teacher: LabelMaker

    @classmethod
    def begin(cls, context: Context[ContinualParams]) -> Self:
        """Before the first group, or where a checkpoint was taken."""
        params, data = context.params, real_data(context.folder("data"))
        images = images_of(context.folders("images"))[: params.take]
        chance = generator(params.seed, "class order", params.steps)
        order = torch.randperm(data.num_classes, generator=chance)
        ends = [len(group) for group in order.tensor_split(params.steps)]
        groups = [order[: sum(ends[: index + 1])] for index in range(params.steps)]
        found = context.resumed()
        curve = [] if found is None else [(seen, top1) for seen, top1 in found.facts["curve"]]
        classes = groups[min(len(curve), len(groups) - 1)]
        lessons = cls(
            params=params,
            device=context.device,
            data=data,
            images=images,
            groups=groups,
            curve=curve,
            student=new_student(params, data, context.device),
            loss=_loss(context, classes),
            teacher=_teacher(context, data, images, classes),
        )
        if found is not None:
            lessons.student.restore(found.tensors)
        return lessons

    @property
    def total(self) -> int:
        """Epochs of all groups."""
        return self.params.plan.epochs * len(self.groups)

    @property
    def done(self) -> int:
        return self.params.plan.epochs * len(self.curve) + (self.student.epoch if self._is_under_way else 0)

    @property
    def _is_under_way(self) -> bool:
        return len(self.curve) < len(self.groups)

    @property
    def classes(self) -> Tensor:
        """(k,) int64: those of the group under way and of all before it."""
        return self.groups[len(self.curve)]

    @property
    def seen(self) -> int:
        return len(self.classes)

    @property
    def is_learnt(self) -> bool:
        """Whether the student of this group has had all its epochs."""
        return self.student.epoch == self.params.plan.epochs

    def train(self) -> None:
        """One epoch. Raises Diverged."""
        plan, logits = self.teacher.epoch(self.student.epoch)
        criterion = Criterion(self.loss, (logits[:, self.loss.classes],))
        self.student.train_epoch(self.teacher.images, plan, criterion, statistics=self.data.statistics)

    def test(self) -> float:
        """Top-1 on the test images of the classes so far, among these classes, %. It ends the group."""
        chosen = torch.isin(self.data.test_labels, self.classes).nonzero()[:, 0]
        place = torch.full((self.data.num_classes,), -1).scatter_(0, self.classes, torch.arange(self.seen))
        top1 = top1_pct(
            _Restricted(self.student.model, self.loss.classes),
            self.data.test,
            place[self.data.test_labels],
            statistics=self.data.statistics,
            precision=self.student.recipe.precision,
            device=self.device,
            rows=chosen,
        )
        self.curve.append((self.seen, top1))
        return top1

    def open_group(self, context: Context[ContinualParams]) -> None:
        """A student from scratch for the next group, if there is one."""
        if self._is_under_way:
            self.student = new_student(self.params, self.data, self.device)
            self.loss = _loss(context, self.classes)
            self.teacher = _teacher(context, self.data, self.images, self.classes)

    def state(self) -> State:
        """Everything that the next epochs depend on."""
        return self.student.state(), {"curve": self.curve}

    def result(self) -> Result:
        """The curve, and its mean: average incremental accuracy."""
        return {
            "curve": self.curve,
            "mean_top1_pct": sum(top1 for _, top1 in self.curve) / len(self.curve),
            "top1_last_pct": self.curve[-1][1],
            "epochs": self.params.plan.epochs,
            "precision": self.student.recipe.precision,
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Among:
    """The loss among some classes: (k,) int64, on the device."""

    classes: Tensor
    loss: Distillation

    def __call__(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.loss(logits[:, self.classes], teacher_logits)


def _loss(context: Context[ContinualParams], classes: Tensor) -> _Among:
    return _Among(classes.to(context.device), Distillation(context.params.temperature))


def _teacher(context: Context[ContinualParams], data: RealData, images: Tensor, classes: Tensor) -> LabelMaker:
    """Labels the images of some classes as they are shown."""
    return label_maker(context, data, fitted(images[:, classes].flatten(0, 1), context.device))
