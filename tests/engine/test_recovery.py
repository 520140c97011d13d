"""The recovery loop: the authors' images step by step, resuming to the byte, and that it gets somewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.augment import View
from engine.errors import Diverged
from engine.matching import Matching
from engine.methods import CvDd, Edc, Fadrm, Gvbsm, Optimised, Recipe
from engine.models import build
from engine.observed import Observed
from engine.pixels import denormalised, resized, to_pixels
from engine.precision import Precision
from engine.recovery import Iteration, Recovery, can_share, inject, objective, recovery_views
from engine.statistics import batch_norms, convolutions
from tests.engine import golden
from tests.engine.golden import CIFAR10

RECIPE = Recipe(budgets=(3, 2, 3), sizes=(8, 12, 12), alpha=0.5, jitter=4)
REPLAYS = {"recover_plain": ["resnet"], "recover_augmented": ["resnet"], "recover_cycle": ["resnet", "shufflenet"]}


def changed(recipe: Recipe = RECIPE, **fields: object) -> Recipe:
    """The recipe with other fields, checked."""
    return Recipe.model_validate(recipe.model_dump() | fields)


def matching(model: nn.Module) -> Matching:
    return Matching(model, RECIPE, torch.arange(10), Observed())


def small_teacher(seed: int = 0) -> nn.Module:
    return build("convnet3_w32", num_classes=4, resolution=16, seed=seed)


def recovery(
    recipe: Recipe = RECIPE,
    *,
    seed: int = 0,
    teachers: int = 2,
    ipc: int = 0,
    networks: Sequence[nn.Module] | None = None,
    **options: Any,
) -> Recovery:
    patches = torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    return Recovery(
        teachers=networks or [small_teacher(seed) for seed in range(teachers)],
        patches=patches,
        labels=torch.arange(4),
        recipe=recipe,
        statistics=CIFAR10,
        seed=seed,
        places=[("recover", ipc, 0)],
        **options,
    )


def ended(block: Recovery) -> Tensor:
    assert list(block.run())
    return block.images


def replay(name: str) -> Recovery:
    """The authors' run again, with their patches, teachers and random decisions."""
    tensors = golden.stored(name)

    def views(step: int, size: int) -> list[View]:
        if "crop_ijhw" not in tensors:
            return []
        top, left, high, wide = tensors["crop_ijhw"][step].tolist()
        down, right = tensors["roll"][step].tolist()
        return [View(box=(top, left, high, wide), flip=bool(tensors["flip"][step]), roll=(down, right))]

    return Recovery(
        teachers=[golden.teacher(teacher) for teacher in REPLAYS[name]],
        patches=tensors["patches"],
        labels=torch.arange(10),
        recipe=changed(budgets=tensors["budgets"].tolist(), sizes=tensors["sizes"].tolist()),
        statistics=CIFAR10,
        seed=0,
        places=[()],
        views=views,
    )


def assert_images_match(ours: Tensor, theirs: Tensor) -> None:
    """The stated tolerance: Adam's first steps follow the sign of gradients that are almost 0, so a few values may differ."""
    difference = (ours - theirs).abs().flatten()
    assert difference.mean() < 1e-5
    assert difference.quantile(0.999) < 1e-3
    assert difference.max() < 0.5


@pytest.mark.parametrize("name", REPLAYS)
def test_images_losses_and_rates_are_the_authors(name: str) -> None:
    tensors, block = golden.stored(name), replay(name)
    assert_images_match(block.images, tensors["images_start"])
    for told in block.run():
        expected = [tensors[key][told.step].item() for key in ("loss_total", "loss_ce", "loss_bn")]
        assert told.losses is not None and tuple(told.losses[0]) == pytest.approx(
            expected, rel=1e-5 if told.stage < 2 and name != "recover_cycle" else 1e-4
        )
        assert told.lr == pytest.approx(tensors["lr"][told.step].item(), abs=1e-12)
        assert told.teachers == (int(tensors["teacher_index"][told.step]),)
        after = f"iter{told.step:02d}.after" if not told.ends_stage else f"stage{told.stage}.end"
        if after in tensors:
            assert_images_match(block.images, tensors[after])
    assert_images_match(block.images, tensors["images_end"])


@pytest.mark.parametrize("name", REPLAYS)
def test_the_picture_files_are_the_authors_when_floored(name: str) -> None:
    tensors, block = golden.stored(name), replay(name)
    pixels = to_pixels(denormalised(ended(block), CIFAR10), rounding="floor")
    off = (pixels.int() - tensors["images_end_u8"].int()).abs() > 1
    assert off.float().mean() < 1e-3


@pytest.mark.parametrize(
    ("name", "teacher", "start", "step"),
    [
        ("recover_plain", "resnet", "images_start", 0),
        ("recover_plain", "resnet", "inject0.result", 3),
        ("recover_plain", "resnet", "inject1.result", 6),
        ("recover_plain", "resnet", "inject2.result", 9),
        ("recover_cycle", "shufflenet", "iter00.after", 1),
        ("recover_cycle", "shufflenet", "inject0.result", 3),
        ("recover_cycle", "resnet", "iter03.after", 4),
    ],
)
def test_gradients_are_the_authors(name: str, teacher: str, start: str, step: int) -> None:
    tensors = golden.stored(name)
    images = tensors[start].clone().requires_grad_()
    model = golden.teacher(teacher)
    _, loss = objective(model, matching(model), images, torch.arange(10), RECIPE)
    (gradient,) = torch.autograd.grad(loss.total, images)
    torch.testing.assert_close(gradient, tensors[f"iter{step:02d}.grad"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("stage", "size"), [(0, 32), (1, 24), (2, 32)])
def test_injection_is_the_authors(stage: int, size: int) -> None:
    tensors = golden.stored("recover_plain")
    mixed = inject(tensors[f"stage{stage}.end"], tensors["patches"], size=size, alpha=0.5)
    torch.testing.assert_close(mixed, tensors[f"inject{stage}.result"], atol=1e-5, rtol=0)


def test_injection_weighs_the_optimised_image_with_alpha() -> None:
    images, patches = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)
    assert torch.equal(inject(images, patches, size=16, alpha=0.25), torch.full((1, 3, 16, 16), 0.25))
    assert torch.equal(inject(images, patches, size=8, alpha=1.0), images)


def test_stages_follow_each_other_with_their_sizes_and_teachers_in_turn() -> None:
    told = list(recovery().run())
    assert [event.size for event in told] == [8] * 3 + [12] * 5
    assert [event.stage for event in told] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert [event.teachers for event in told] == [(0,), (1,)] * 4
    assert [event.step for event in told if event.ends_stage] == [2, 4, 7]
    assert [event.injects_into for event in told if event.ends_stage] == [12, 12, None]


def test_between_stages_the_patches_are_mixed_in_and_after_the_last_they_are_not() -> None:
    block = recovery(changed(lr=1e-12, alpha=0.25, jitter=0))
    start, patches = block.images.clone(), block._patches
    assert patches is not None
    mixed = 0.25 * resized(start, 12) + 0.75 * patches
    torch.testing.assert_close(ended(block), 0.25 * mixed + 0.75 * patches, atol=1e-5, rtol=0)


def test_adam_forgets_at_each_injection() -> None:
    block = recovery()
    ages = [int(block.state()["adam.step"]) for _ in block.run()]
    assert ages == [1, 2, 3, 1, 2, 1, 2, 3]


def test_losses_fall() -> None:
    recipe = changed(budgets=(40,), sizes=(12,), crop=False, jitter=0, lr=0.05)
    block = recovery(recipe, teachers=1, flip=False)
    losses = [told.losses[0].total for told in block.run() if told.losses]
    assert losses[-1] < 0.9 * losses[0]


def test_images_stay_between_black_and_white() -> None:
    block = recovery(changed(lr=5.0))
    unit = ended(block) * torch.tensor(CIFAR10[1])[:, None, None] + torch.tensor(CIFAR10[0])[:, None, None]
    assert unit.min() > -1e-6 and unit.max() < 1 + 1e-6 and unit.max() - unit.min() > 0.9


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    assert torch.equal(ended(recovery()), ended(recovery()))
    assert not torch.equal(ended(recovery()), ended(recovery(seed=1)))
    assert not torch.equal(ended(recovery()), ended(recovery(ipc=1)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop", range(9))
def test_resuming_after_any_iteration_changes_no_byte(stop: int, precision: Precision) -> None:
    interrupted, resumed = recovery(precision=precision), recovery(precision=precision)
    steps = interrupted.run()
    for _ in range(stop):
        next(steps)
    state = {name: value.clone() for name, value in interrupted.state().items()}
    list(steps)
    resumed.restore(state)
    assert resumed.step == stop
    list(resumed.run())
    assert torch.equal(resumed.images, interrupted.images)


def test_a_state_is_a_copy() -> None:
    block = recovery()
    steps = block.run()
    next(steps)
    state = block.state()
    before = {name: value.clone() for name, value in state.items()}
    list(steps)
    assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_losses_are_fetched_only_where_asked_for_and_at_the_end_of_stages() -> None:
    told = list(recovery().run(every=4))
    assert [event.step for event in told if event.losses] == [0, 2, 4, 7]


def test_watching_changes_no_byte() -> None:
    unwatched = recovery()
    list(unwatched.run(every=100))
    assert torch.equal(ended(recovery()), unwatched.images)


class Overflowing(nn.Module):
    """A teacher whose logits are not finite from its third call on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = small_teacher(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.inner(x)
        return logits * torch.inf if self.calls > 2 else logits


@pytest.mark.parametrize(("every", "noticed"), [(1, 2), (100, 7)])
def test_a_loss_that_is_not_finite_ends_the_run(every: int, noticed: int) -> None:
    block = recovery(changed(budgets=(8,), sizes=(12,)), networks=[Overflowing()])
    with pytest.raises(Diverged, match=f"at step {noticed}"):
        list(block.run(every=every))


def test_teachers_are_left_without_hooks_gradients_or_other_statistics() -> None:
    block, untouched = recovery(teachers=1), small_teacher()
    ended(block)
    (teacher,) = block._teachers
    assert not any(part._forward_pre_hooks for part in teacher.modules())
    assert all(value.grad is None for value in teacher.parameters())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in untouched.state_dict().items())


def test_no_mode_of_torch_leaks_to_who_listens() -> None:
    for _ in recovery(precision="bf16").run():
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_low_precision_stays_close() -> None:
    whole, half = (objective_of("fp32"), objective_of("bf16"))
    assert half == pytest.approx(whole, rel=0.05)


def objective_of(precision: Precision) -> float:
    images = golden.stored("bn_loss")["images"]
    model = golden.teacher("resnet")
    return objective(model, matching(model), images, torch.arange(10), RECIPE, precision)[1].total.item()


def test_a_view_depends_on_its_place_alone() -> None:
    here, there = ("recover", 0, 0), ("recover", 1, 0)
    both = recovery_views(RECIPE, True, 0, [here, there], 3, 12)
    assert both == (*recovery_views(RECIPE, True, 0, [here], 3, 12), *recovery_views(RECIPE, True, 0, [there], 3, 12))
    assert len({*both, *recovery_views(RECIPE, True, 0, [here], 4, 12)}) == 3


def test_without_augmentation_there_is_no_view() -> None:
    assert recovery_views(changed(crop=False, jitter=0), False, 0, [()], 0, 12) == ()


PLACES = [("recover", 0, 0), ("recover", 1, 0), ("recover", 2, 0)]


def several(start: int, stop: int, **options: Any) -> Recovery:
    """Some blocks of three, with patches of their own."""
    patches = torch.randn(12, 3, 12, 12, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    teachers = options.pop("networks", None) or [small_teacher(seed) for seed in range(2)]
    return Recovery(
        teachers=teachers,
        patches=patches[4 * start : 4 * stop],
        labels=torch.arange(4).repeat(stop - start),
        recipe=options.pop("recipe", RECIPE),
        statistics=CIFAR10,
        seed=0,
        places=PLACES[start:stop],
        **options,
    )


@pytest.mark.parametrize("recipe", [RECIPE, Edc(budgets=(3, 2), sizes=(8, 12), lr=0.05).recipe(12)])
def test_blocks_that_share_a_batch_come_to_what_each_comes_to_alone(recipe: Recipe) -> None:
    seen = {"observed": [observed_by(small_teacher(seed)) for seed in range(2)], "recipe": recipe}
    together, alone = several(0, 3, **seen), [several(index, index + 1, **seen) for index in range(3)]
    for told, *others in zip(together.run(), *(block.run() for block in alone), strict=True):
        expected = [tuple(other.losses[0]) for other in others if other.losses]
        assert told.losses is not None
        torch.testing.assert_close([tuple(losses) for losses in told.losses], expected, rtol=1e-4, atol=1e-5)
    assert_images_match(together.images, torch.cat([block.images for block in alone]))


def observed_by(model: nn.Module) -> Observed:
    convs, norms = (
        sum(layer.in_channels for layer in convolutions(model)),
        sum(x.num_features for x in batch_norms(model)),
    )
    return Observed(conv=(torch.zeros(convs), torch.ones(convs)), classes=(torch.zeros(4, norms), torch.ones(4, norms)))


def test_blocks_of_one_batch_go_on_to_the_same_bytes() -> None:
    interrupted, resumed = several(0, 3), several(0, 3)
    steps = interrupted.run()
    for _ in range(4):
        next(steps)
    resumed.restore(interrupted.state())
    assert torch.equal(ended(resumed), (list(steps), interrupted.images)[1])


def test_a_block_that_is_lost_ends_the_run() -> None:
    with pytest.raises(Diverged):
        list(several(0, 3, networks=[Overflowing()]).run())


@pytest.mark.parametrize(
    ("method", "teachers", "precision", "shares"),
    [
        (Fadrm(), 4, "fp32", True),
        (Fadrm(), 1, "fp16", False),  # an overflow of one would hold up the others
        (CvDd(), 2, "bf16", False),  # each block draws its own pairs
        (Gvbsm(), 1, "bf16", True),
    ],
)
def test_blocks_share_a_batch_where_nothing_but_statistics_ties_them(
    method: Optimised, teachers: int, precision: Precision, shares: bool
) -> None:
    assert can_share(method.recipe(32), teachers, precision) == shares


def test_a_recipe_is_made_from_the_spec_with_the_papers_stages() -> None:
    recipe = Fadrm().recipe(224)
    assert (recipe.sizes, recipe.budgets) == ((200, 224, 200, 224), (500,) * 4)
    assert (recipe.steps, recipe.jitter, recipe.lr, recipe.r_bn, recipe.first_bn) == (2000, 32, 0.25, 0.01, 10.0)
    assert Fadrm(jitter=0).recipe(32).jitter == 0


def test_an_iteration_is_data() -> None:
    told: Iteration = next(recovery().run())
    assert told == replace(told) and told.losses is not None
