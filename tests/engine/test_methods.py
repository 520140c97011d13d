"""What each method adds to the loop: closed forms, and that a block goes on from anywhere to the same bytes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.committee import prior_weights, votes
from engine.losses import committee_loss, flatness_penalties, recover_loss
from engine.matching import Matching
from engine.methods import Cda, CvDd, Edc, Fadrm, Gvbsm, Optimised, Recipe, Sre2l, Sre2lPlusPlus
from engine.models import build, frozen
from engine.moments import Moments, image_moments
from engine.observed import Observed
from engine.recovery import AVERAGE_KEPT, Recovery, objective, recovery_views
from engine.statistics import ClassStatistics, ConvStatistics, batch_norms, convolutions
from tests.engine.golden import CIFAR10

LABELS = torch.arange(2)
METHODS: tuple[Optimised, ...] = tuple(
    method(budgets=(4, 3), sizes=(8, 12)) for method in (Sre2l, Sre2lPlusPlus, Cda, Gvbsm, CvDd, Edc, Fadrm)
)


def _teacher(seed: int) -> nn.Module:
    return frozen(build("convnet3_w32", num_classes=2, resolution=12, seed=seed))


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _moments(*shape: int) -> Moments:
    return _randn(*shape), _randn(*shape, seed=1).square()


def _observed(model: nn.Module, crops_top1_pct: float = 50.0) -> Observed:
    convs, norms = (
        sum(layer.in_channels for layer in convolutions(model)),
        sum(layer.num_features for layer in batch_norms(model)),
    )
    return Observed(conv=_moments(convs), classes=_moments(2, norms), crops_top1_pct=crops_top1_pct)


def _recovery(recipe: Recipe, *, seed: int = 0, **options: Any) -> Recovery:
    teachers = [_teacher(index) for index in range(3)]
    given: dict[str, Any] = {
        "teachers": teachers,
        "patches": _randn(2, 3, 12, 12, seed=5).clamp(-1, 1) if recipe.start == "patches" else None,
        "labels": LABELS,
        "recipe": recipe,
        "statistics": CIFAR10,
        "seed": seed,
        "places": [("recover", 0, 0)],
        "observed": [_observed(teacher, 60.0 + 5 * index) for index, teacher in enumerate(teachers)],
    }
    return Recovery(**given | options)


def _ended(block: Recovery) -> Tensor:
    assert list(block.run())
    return block.images


def _name(method: Optimised) -> str:
    return str(method.model_dump()["method"])


@pytest.mark.parametrize("method", METHODS, ids=_name)
@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_going_on_after_any_iteration_changes_no_byte(method: Optimised, stop: int) -> None:
    recipe = method.recipe(12)
    interrupted, resumed = _recovery(recipe), _recovery(recipe)
    steps = interrupted.run()
    for _ in range(stop):
        next(steps)
    state = interrupted.state()
    list(steps)
    resumed.restore(state)
    assert torch.equal(_ended(resumed), interrupted.images)


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_the_seed_and_nothing_else_decides(method: Optimised) -> None:
    recipe = method.recipe(12)
    first = _ended(_recovery(recipe))
    assert torch.equal(_ended(_recovery(recipe)), first)
    assert not torch.equal(_ended(_recovery(recipe, seed=1)), first)


@pytest.mark.parametrize("method", METHODS, ids=_name)
def test_the_loss_falls(method: Optimised) -> None:
    changed = method.model_copy(update={"budgets": (30,), "sizes": (12,), "lr": 0.05, "crop": False, "jitter": 0})
    block = _recovery(changed.recipe(12), teachers=[_teacher(0)] * 2, observed=[_observed(_teacher(0))] * 2, flip=False)
    losses = [told.losses[0].total for told in block.run() if told.losses]
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize(("resolution", "lr"), [(32, 0.05), (64, 0.05), (128, 0.1), (224, 0.1)])
def test_g_vbsms_rate_is_that_of_its_code_unless_a_spec_names_one(resolution: int, lr: float) -> None:
    assert Gvbsm().recipe(resolution).lr == lr and Gvbsm().recipe(resolution).budgets == (4000,)
    assert Gvbsm(lr=0.25).recipe(resolution).lr == 0.25


def test_noise_is_normal_in_normalised_space_and_belongs_to_its_place() -> None:
    recipe = Sre2l().recipe(32)
    start = _recovery(recipe, labels=torch.zeros(50).long()).images
    assert start.shape == (50, 3, 32, 32)
    assert start.mean().abs() < 0.01 and abs(start.std().item() - 1) < 0.01
    assert torch.equal(_recovery(recipe).images, _recovery(recipe).images)
    assert not torch.equal(_recovery(recipe).images, _recovery(recipe, places=[("recover", 1, 0)]).images)


def test_noise_has_nothing_to_mix_in() -> None:
    block = _recovery(Sre2l(budgets=(2, 2), sizes=(8, 12)).recipe(12))
    assert [told.injects_into for told in block.run()] == [None] * 4 and block.images.shape[2] == 12
    with pytest.raises(ValueError, match="alpha must be 1"):
        Recipe(start="noise", alpha=0.5, budgets=(1,), sizes=(8,), jitter=0)


def test_crops_grow_harder_along_a_cosine() -> None:
    recipe = Cda(budgets=(50, 50), easiest_crop=0.9).recipe(32)
    assert recipe.smallest_crop(0) == pytest.approx(0.9)
    assert recipe.smallest_crop(50) == pytest.approx((0.9 + 0.08) / 2)
    assert recipe.smallest_crop(99) == pytest.approx(0.08, abs=1e-3)
    assert {Fadrm().recipe(32).smallest_crop(step) for step in (0, 999, 1999)} == {0.08}


def test_an_easy_crop_is_most_of_the_image_and_late_ones_may_be_small() -> None:
    recipe = Cda(budgets=(1000,)).recipe(32)

    def share(step: int) -> float:
        (view,) = recovery_views(recipe, True, 0, [("recover", 0, 0)], step, 32)
        return view.box[2] * view.box[3] / 32**2

    assert min(share(step) for step in range(10)) > 0.9
    assert min(share(step) for step in range(900, 1000)) < 0.2


def test_a_pair_is_the_weighted_sum_of_both() -> None:
    recipe = CvDd(budgets=(1,), crop=False, jitter=0).recipe(12)
    block = _recovery(recipe, flip=False)
    images, (told,) = block.images.clone(), list(block.run())
    priors = [60.0, 65.0, 70.0]
    expected = 0.0
    for teacher, weight in votes("pairs", 0, priors_pct=priors, seed=0, place=("recover", 0, 0)):
        model = _teacher(teacher)
        matching = Matching(model, recipe, LABELS, Observed())
        expected += weight * objective(model, matching, images, LABELS, recipe)[1].total.item()
    assert told.losses is not None and told.losses[0].total == pytest.approx(expected, rel=1e-5)
    assert len(told.teachers) == 2


def test_a_committee_of_equals_is_any_of_them() -> None:
    loss = recover_loss(_randn(2, 2), LABELS, torch.tensor([3.0]), r_bn=0.1)
    both = committee_loss([loss, loss], prior_weights([70.0, 70.0]))
    torch.testing.assert_close((both.total, both.ce, both.bn), (loss.total, loss.ce, loss.bn))


def test_flatness_costs_nothing_where_images_are_their_average() -> None:
    logits = _randn(3, 4)
    assert flatness_penalties(logits, logits, blocks=1).item() == pytest.approx(0, abs=1e-7)
    flat, told = torch.tensor([[0.0, 0.0]]), torch.tensor([[4 * math.log(3), 0.0]])  # softmax at 4: 3/4, 1/4
    expected = (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2
    assert flatness_penalties(flat, told, blocks=1).item() == pytest.approx(expected)


def test_the_average_follows_the_images_before_each_step() -> None:
    block = _recovery(Edc(budgets=(3,)).recipe(12))
    expected, seen = block.images.clone(), []
    steps = block.run()
    for _ in range(3):
        seen.append(block.images.clone())
        next(steps)
    for images in seen:
        expected = AVERAGE_KEPT * expected + (1 - AVERAGE_KEPT) * images
    torch.testing.assert_close(block.state()["average"], expected)


def test_the_first_iteration_pays_nothing_for_flatness_and_later_ones_do() -> None:
    certain = _teacher(0)
    certain.get_parameter("linear.weight").mul_(100)  # untrained, it hardly tells images apart
    recipe = Edc(budgets=(20,), lr=0.5, crop=False, jitter=0).recipe(12)
    block = _recovery(recipe, teachers=[certain], observed=[_observed(certain)], flip=False)
    told = [told.losses[0] for told in block.run() if told.losses]
    first, *_, last = [total - ce - recipe.r_bn * distance for total, ce, distance in told]
    assert last > 0.01 > 100 * abs(first)


def test_images_with_their_classs_statistics_cost_nothing() -> None:
    model, images = _teacher(0), _randn(2, 3, 12, 12)
    own: list[Moments] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: own.append(image_moments(inputs[0])))
        for layer in batch_norms(model)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    real = torch.cat([mean for mean, _ in own], 1), torch.cat([var for _, var in own], 1)
    with ClassStatistics(model, real) as statistics:
        model(images)
    assert statistics.distances().tolist() == [[0.0] * 3]
    with ClassStatistics(model, (real[0] + 1, real[1])) as statistics:
        model(images)
    torch.testing.assert_close(statistics.distances(), torch.full((1, 3), 32**0.5))


def test_the_share_of_classes_mixes_two_distances() -> None:
    model, images = _teacher(0), _randn(2, 3, 12, 12)

    def distance(share: float) -> float:
        recipe = Recipe(budgets=(1,), sizes=(12,), jitter=0, class_share=share)
        matching = Matching(model, recipe, LABELS, _observed(model))
        with matching:
            model(images)
        return matching.distance().item()

    assert distance(0.25) == pytest.approx(0.75 * distance(0) + 0.25 * distance(1), rel=1e-5)
    assert distance(1) != pytest.approx(distance(0), rel=0.01)


def test_an_image_is_held_to_its_own_class() -> None:
    model, recipe = _teacher(0), Recipe(budgets=(1,), sizes=(12,), jitter=0, class_share=1.0)
    images, observed = _randn(2, 3, 12, 12), _observed(model)

    def distance(labels: Tensor, images: Tensor) -> float:
        matching = Matching(model, recipe, labels, observed)
        with matching:
            model(images)
        return matching.distance().item()

    assert distance(LABELS, images) == pytest.approx(distance(LABELS.flip(0), images.flip(0)), rel=1e-5)
    assert distance(LABELS, images) != pytest.approx(distance(LABELS, images.flip(0)), rel=1e-3)


def test_convolutions_are_matched_by_what_enters_them() -> None:
    model, images = _teacher(0), _randn(4, 3, 12, 12)
    inputs: list[Tensor] = []
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in convolutions(model)]
    model(images)
    for hook in hooks:
        hook.remove()
    assert torch.equal(inputs[0], images)
    mean, var = _moments(sum(given.shape[1] for given in inputs))
    with ConvStatistics(model, (mean, var)) as statistics:
        model(images)
    expected, start = [], 0
    for given in inputs:
        part = slice(start, start + given.shape[1])
        seen_mean, seen_var = given.mean((0, 2, 3)), given.var((0, 2, 3), correction=0)
        expected.append((seen_mean - mean[part]).norm() + (seen_var - var[part]).norm())
        start = part.stop
    torch.testing.assert_close(statistics.distances()[0], torch.stack(expected), atol=1e-4, rtol=1e-5)
