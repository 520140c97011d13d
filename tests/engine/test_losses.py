"""The objectives: the authors' numbers, closed forms and limits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engine.losses import distillation_loss, mixed_cross_entropy, recover_loss, weighted_distance
from engine.statistics import BatchNormStatistics
from tests.engine import golden


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["resnet", "shufflenet", "densenet", "mobilenet"])
@pytest.mark.parametrize("first_bn", [1, 10])
def test_recovery_minimises_what_the_authors_do(name: str, first_bn: int) -> None:
    stored, model = golden.stored("bn_loss"), golden.teacher(name)
    images = stored["images"].clone().requires_grad_()
    with BatchNormStatistics(model) as statistics:
        predicted = model(images)
    distance = weighted_distance(statistics.distances(), first_bn=first_bn)
    loss = recover_loss(predicted, stored["labels"], distance, r_bn=0.01)
    (gradient,) = torch.autograd.grad(loss.total, images)
    torch.testing.assert_close(loss.ce[0], stored[f"{name}.ce"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.bn[0], stored[f"{name}.bn_loss_mult{first_bn}"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss.total[0], stored[f"{name}.total_mult{first_bn}"], atol=1e-5, rtol=0)
    if f"{name}.grad_mult{first_bn}" in stored:
        torch.testing.assert_close(gradient, stored[f"{name}.grad_mult{first_bn}"], atol=1e-6, rtol=0)


def test_the_first_batch_norm_counts_ten_times() -> None:
    assert weighted_distance(torch.tensor([[2.0, 3.0, 4.0]]), first_bn=10).item() == 27


def test_each_block_has_a_loss_of_its_own() -> None:
    answers, labels = logits(4, 3), torch.tensor([0, 1, 2, 0])
    both = recover_loss(answers, labels, torch.tensor([1.0, 2.0]), r_bn=0.5)
    second = recover_loss(answers[2:], labels[2:], torch.tensor([2.0]), r_bn=0.5)
    torch.testing.assert_close(both.total[1:], second.total)


def test_without_batch_norm_only_cross_entropy_counts() -> None:
    nothing = weighted_distance(torch.zeros(1, 0), first_bn=10)
    loss = recover_loss(logits(4, 3), torch.tensor([0, 1, 2, 0]), nothing, r_bn=0.01)
    assert loss.bn.item() == 0 and torch.equal(loss.total, loss.ce)


def test_distillation_is_the_authors_without_the_squared_temperature() -> None:
    stored = golden.stored("student_loss")
    student = stored["kl.student_logits"].clone().requires_grad_()
    loss = distillation_loss(student, stored["kl.teacher_logits"], temperature=20)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(loss, stored["kl.loss"], atol=1e-6, rtol=0)
    torch.testing.assert_close(gradient, stored["kl.grad"], atol=1e-8, rtol=0)


def test_a_student_that_agrees_pays_nothing() -> None:
    assert distillation_loss(logits(5, 7), logits(5, 7) + 3, temperature=20).item() == pytest.approx(0, abs=1e-6)


def test_losses_are_fp32_whatever_the_logits_are() -> None:
    half = logits(4, 3).half()
    assert distillation_loss(half, half, temperature=20).dtype == torch.float32
    assert recover_loss(half, torch.zeros(4).long(), torch.zeros(1), r_bn=1).total.dtype == torch.float32


def test_a_mixed_image_counts_for_both_classes_by_area() -> None:
    even = torch.zeros(1, 4)
    own, pasted = torch.tensor([0]), torch.tensor([1])
    assert mixed_cross_entropy(even, own, pasted, torch.tensor([0.3])).item() == pytest.approx(math.log(4))
    sure = torch.tensor([[9.0, 0.0, 0.0, 0.0]])
    costs = [mixed_cross_entropy(sure, own, pasted, torch.tensor([share])).item() for share in (0, 0.25, 1)]
    assert costs[1] == pytest.approx(0.75 * costs[0] + 0.25 * costs[2], rel=1e-5)
