"""Students: the authors' optimiser step, resuming to the byte, learning, and testing."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from engine.errors import Diverged
from engine.labels import LabelPlan, draw_plan, rendered_batches, soft_labels
from engine.models import build
from engine.precision import Precision
from engine.students import (
    Student,
    StudentRecipe,
    evaluate,
    hard_criterion,
    soft_criterion,
    student_optimizer,
    top1_pct,
)
from tests.engine import golden
from tests.engine.golden import CIFAR10

CPU = torch.device("cpu")
COUNT, SIDE, CLASSES = 22, 16, 4


def pictures() -> tuple[Tensor, Tensor]:
    """Images whose class can be seen: each has a bright quarter of its own."""
    labels = torch.arange(COUNT) % CLASSES
    images = torch.randint(0, 60, (COUNT, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label % 3, label // 2 * 8 :, :] += 150
    return images.to(torch.uint8), labels


def student(
    *, epochs: int = 3, precision: Precision = "fp32", lr: float = 0.01, network: nn.Module | None = None
) -> Student:
    model = network or build("convnet3_w32", num_classes=CLASSES, resolution=SIDE, seed=0)
    return Student(model, StudentRecipe(epochs=epochs, lr=lr, precision=precision), device=CPU, seed=5)


def plan(epoch: int, *, cutmix: bool = True) -> LabelPlan:
    return draw_plan(COUNT, batch_size=8, side=SIDE, seed=0, epoch=epoch, cutmix=cutmix)


def labelled(drawn: LabelPlan) -> Tensor:
    """(N, K) logits of an untrained teacher for an epoch."""
    teacher = build("convnet3_w32", num_classes=CLASSES, resolution=SIDE, seed=9)
    batches = rendered_batches(pictures()[0], drawn, statistics=CIFAR10, device=CPU)
    return torch.cat([soft_labels([teacher], images) for _, images in batches])


def train(one: Student, *, epochs: int) -> list[float]:
    """Soft-label epochs until `epochs` are done; the loss of each."""
    losses = []
    while one.epoch < epochs:
        drawn = plan(one.epoch)
        criterion = soft_criterion(labelled(drawn), temperature=20, device=CPU)
        losses.append(one.train_epoch(pictures()[0], drawn, criterion, statistics=CIFAR10))
    return losses


def golden_student() -> Student:
    tensors = golden.stored("student_loss")
    model = golden.network("resnet")
    model.load_state_dict({key.removeprefix("before."): value for key, value in tensors.items() if "before." in key})
    return Student(model.train(), StudentRecipe(epochs=1), device=CPU)


def golden_steps(one: Student, count: int) -> Tensor:
    """Undivided losses of each half of each step on the authors' batch."""
    teacher_logits = golden.stored("student_loss")["step.teacher_logits_f16"]
    criterion = soft_criterion(teacher_logits, temperature=20, device=CPU)
    images = golden.stored("labels")["images_mixed"]
    return torch.cat([one.descend(images, slice(0, 16), criterion) for _ in range(count)])


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 1e-7), (3, 5e-6)])
def test_weights_and_statistics_after_a_step_are_the_authors(steps: int, tolerance: float) -> None:
    tensors, one = golden.stored("student_loss"), golden_student()
    golden_steps(one, steps)
    for name, value in one.model.state_dict().items():
        apart = (value - tensors[f"after{steps}.{name}"]).abs().double()
        if "running" in name:
            assert apart.max() < 1e-5, name
        else:  # Adam divides a gradient by its size: one near zero decides by its rounding, which differs between CPUs
            assert apart.mean() < tolerance and apart.max() < 0.1 * one.recipe.lr, name


def test_losses_of_both_halves_are_the_authors() -> None:
    losses = golden_steps(golden_student(), 3)
    torch.testing.assert_close(losses, golden.stored("student_loss")["step.half_losses"], atol=1e-6, rtol=0)


def test_the_gradient_of_a_step_is_the_authors() -> None:
    one = golden_student()
    golden_steps(one, 1)
    for name, value in one.model.named_parameters():
        assert value.grad is not None
        torch.testing.assert_close(value.grad, golden.stored("student_loss")[f"grad.{name}"], atol=1e-7, rtol=0)


def test_only_weights_of_two_dimensions_decay() -> None:
    model = golden.network("resnet")
    names = {id(value): name for name, value in model.named_parameters()}
    decayed, others = student_optimizer(model, lr=0.001, weight_decay=0.01).param_groups
    facts = golden.metadata("student_loss")
    assert [names[id(value)] for value in decayed["params"]] == json.loads(facts["decay_group"])
    assert [names[id(value)] for value in others["params"]] == json.loads(facts["no_decay_group"])
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0)


def test_the_rate_follows_the_smoothed_cosine() -> None:
    one, rates = student(epochs=2), []
    for epoch in (1, 2):
        train(one, epochs=epoch)
        rates.append(one._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01, 0.01 * 0.5 * (1 + 0.5**0.5)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resuming_after_an_epoch_changes_no_byte(precision: Precision) -> None:
    network = nn.Sequential(build("convnet3_w32", num_classes=CLASSES, resolution=SIDE, seed=0), nn.Dropout(0.3))
    again = nn.Sequential(build("convnet3_w32", num_classes=CLASSES, resolution=SIDE, seed=1), nn.Dropout(0.3))
    straight, resumed = student(precision=precision, network=network), student(precision=precision, network=again)
    train(straight, epochs=1)
    state = straight.state()
    torch.rand(3)
    train(straight, epochs=3)
    resumed.restore(state)
    train(resumed, epochs=3)
    assert all(
        torch.equal(value, resumed.model.state_dict()[key]) for key, value in straight.model.state_dict().items()
    )


def test_a_student_comes_to_agree_with_its_teacher() -> None:
    losses = train(student(epochs=12), epochs=12)
    assert losses[-1] < 0.7 * losses[0]


def test_a_student_learns_true_classes_from_mixed_images() -> None:
    one, (images, labels) = student(epochs=12), pictures()
    for epoch in range(12):
        drawn = plan(epoch)
        one.train_epoch(images, drawn, hard_criterion(labels, drawn, side=SIDE, device=CPU), statistics=CIFAR10)
    assert top1_pct(one.model, images, labels, statistics=CIFAR10, precision="fp32", device=CPU) > 60


def test_hard_labels_follow_the_plan() -> None:
    drawn, labels = plan(0), pictures()[1]
    criterion = hard_criterion(labels, drawn, side=SIDE, device=CPU)
    (batch, *_), shares = drawn.batches, (drawn.mix_boxes[0, 2:] - drawn.mix_boxes[0, :2]).prod().item() / SIDE**2
    own = labels[drawn.order[batch].long()]
    pasted = own[drawn.partners[batch].long()]
    chances = torch.full((len(own), CLASSES), 1e-9)
    rows = torch.arange(len(own))
    chances[rows, own] += 1 - shares
    chances[rows, pasted] += shares
    entropy = -(chances * chances.log()).sum(1).mean()
    torch.testing.assert_close(criterion(chances.log(), batch), entropy, atol=1e-4, rtol=0)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    drawn = plan(0)
    criterion = soft_criterion(torch.full((COUNT, CLASSES), torch.nan), temperature=20, device=CPU)
    with pytest.raises(Diverged, match="student training"):
        student().train_epoch(pictures()[0], drawn, criterion, statistics=CIFAR10)


class Reader(nn.Module):
    """Tells the class that is written into the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        written = (x[:, 0, 0, 0, None] * 255).round()
        logits: Tensor = -(torch.arange(10) - written).abs()
        return logits


@pytest.mark.parametrize(("shift", "top1", "top5"), [(0, 100, 100), (2, 0, 100), (5, 0, 0)])
def test_accuracies_count_the_best_and_the_best_five(shift: int, top1: float, top5: float) -> None:
    labels = torch.arange(3, 7).repeat(300)
    images = (labels - shift)[:, None, None, None].expand(-1, 3, 16, 16).to(torch.uint8).clone()
    if shift == 5:
        images = torch.full_like(images, 9)
        labels = torch.zeros_like(labels)
    plain = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    accuracy = evaluate(Reader(), images, labels, statistics=plain, precision="fp32", device=CPU)
    assert (accuracy.top1_pct, accuracy.top5_pct) == (top1, top5)
    assert accuracy.loss > 0


def test_among_five_classes_the_best_five_say_nothing() -> None:
    images, labels = pictures()
    accuracy = evaluate(student().model, images, labels, statistics=CIFAR10, precision="fp32", device=CPU)
    assert accuracy.top5_pct is None and 0 <= accuracy.top1_pct <= 100
