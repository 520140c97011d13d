"""Soft labels: the authors' pixels and logits, plans that depend on their epoch alone, and teachers left as they were."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from engine.labels import (
    LabelPlan,
    _gathered,
    apart,
    batch_slices,
    draw_plan,
    folded,
    halves,
    labelled,
    mix_shares,
    render,
    rendered_batches,
    soft_labels,
)
from engine.models import build
from tests.engine.golden import CIFAR10, stored, teacher

CPU = torch.device("cpu")


def official_plan() -> LabelPlan:
    """The authors' decisions as a plan of one batch."""
    tensors = stored("labels")
    return LabelPlan(
        batch_size=16,
        order=tensors["order"].int(),
        boxes=tensors["crop_ijhw"].short(),
        flips=tensors["flip"].bool(),
        partners=tensors["mix_index"].short(),
        mix_boxes=tensors["mix_box"][None].short(),
    )


def pictures(count: int = 37, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def plan(epoch: int = 0, **options: bool) -> LabelPlan:
    return draw_plan(37, batch_size=8, side=16, seed=0, epoch=epoch, **options)


def rendered(epoch_plan: LabelPlan) -> list[Tensor]:
    return [images for _, images in rendered_batches(pictures(), epoch_plan, statistics=CIFAR10, device=CPU)]


def test_a_rendered_batch_is_what_the_authors_teacher_saw() -> None:
    ((positions, images),) = rendered_batches(
        stored("labels")["images_u8"], official_plan(), statistics=CIFAR10, device=CPU
    )
    assert positions == slice(0, 16)
    torch.testing.assert_close(images, stored("labels")["images_mixed"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("teachers", "statistics", "name"),
    [
        (["resnet"], "batch", "logits_one.f32"),
        (["resnet", "shufflenet"], "batch", "logits_mean2.f32"),
        (["resnet"], "running", "logits_one_evalmode.f32"),
    ],
)
def test_labels_are_the_authors(teachers: list[str], statistics: Literal["batch", "running"], name: str) -> None:
    labels = soft_labels([teacher(one) for one in teachers], stored("labels")["images_mixed"], statistics=statistics)
    torch.testing.assert_close(labels, stored("labels")[name], atol=2e-5, rtol=0)


def test_labels_are_the_authors_to_half_precision() -> None:
    labels = soft_labels([teacher("resnet")], stored("labels")["images_mixed"]).half()
    expected = stored("labels")["logits_one.f16"]
    assert (labels.view(torch.int16) - expected.view(torch.int16)).abs().max() <= 1  # one unit in the last place


def test_each_half_of_a_batch_has_its_own_statistics() -> None:
    images = stored("labels")["images_mixed"]
    whole = soft_labels([teacher("resnet")], images)
    torch.testing.assert_close(soft_labels([teacher("resnet")], images[:8].repeat(2, 1, 1, 1))[:8], whole[:8])
    apart = soft_labels([teacher("resnet")], torch.cat([images[:8], images[:8]]))
    assert not torch.allclose(apart[8:], whole[8:], atol=0.1)


@pytest.mark.parametrize("statistics", ["batch", "running"])
@pytest.mark.parametrize("at_once", [16, 40, 1000])
def test_batches_that_are_labelled_together_are_labelled_as_alone(
    statistics: Literal["batch", "running"], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.labels.LABELLED_PIXELS", at_once * 16**2)
    given = {"statistics": CIFAR10, "batch_norm": statistics, "precision": "fp32", "device": CPU}
    together = labelled([teacher("resnet")], pictures(), plan(), **given)  # type: ignore[arg-type]
    alone = [soft_labels([teacher("resnet")], images, statistics=statistics) for images in rendered(plan())]
    torch.testing.assert_close(together, torch.cat(alone).half(), atol=2e-3, rtol=2e-3)


def test_batches_are_gathered_up_to_a_number_of_images_and_never_cut() -> None:
    gathered = [[sum(map(len, batches)) for batches in _gathered(rendered(plan()), most)] for most in (4, 20, 1000)]
    assert gathered == [[8, 8, 8, 8, 5], [16, 16, 5], [37]]


def test_parts_are_normalised_apart_in_training_too() -> None:
    norm, alone = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    features = torch.randn(7, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    parts = [slice(0, 3), slice(3, 7)]
    with apart(nn.Sequential(norm), parts):
        seen = norm(features)
    assert torch.equal(seen, torch.cat([alone(features[part]) for part in parts]))
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in norm.state_dict().items())
    assert torch.equal(norm.eval()(features), alone.eval()(features))  # nothing of it is left


def test_parts_that_are_folded_into_channels_are_the_same() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    features = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = torch.cat([norm(part) for part in features.chunk(4)])
    torch.testing.assert_close(folded(norm, features, 4), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_labelling_changes_nothing_of_the_teacher(statistics: Literal["batch", "running"]) -> None:
    model = teacher("mobilenet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    soft_labels([model], stored("labels")["images_mixed"], statistics=statistics)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert all(part.track_running_stats for part in model.modules() if isinstance(part, nn.BatchNorm2d))


def test_dropout_stays_off() -> None:
    model = nn.Sequential(build("convnet3_w32", num_classes=10, resolution=16, seed=0), nn.Dropout(0.9))
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(soft_labels([model], images), soft_labels([model[0]], images))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 16])
def test_no_part_of_a_batch_is_a_single_image_unless_the_batch_is(count: int) -> None:
    parts = halves(count)
    assert [index for part in parts for index in range(part.start, part.stop)] == list(range(count))
    assert min(part.stop - part.start for part in parts) >= min(count, 2)


def test_halves_are_cut_as_the_authors_do() -> None:
    assert halves(16) == [slice(0, 8), slice(8, 16)]
    assert halves(13) == [slice(0, 6), slice(6, 13)]


@pytest.mark.parametrize(
    ("count", "sizes"), [(16, [8, 8]), (18, [8, 8, 2]), (17, [8, 9]), (9, [9]), (7, [7]), (1, [1])]
)
def test_a_last_image_alone_joins_the_batch_before(count: int, sizes: list[int]) -> None:
    assert [batch.stop - batch.start for batch in batch_slices(count, 8)] == sizes


def test_an_epoch_shows_every_image_once() -> None:
    assert sorted(plan().order.tolist()) == list(range(37))


def test_partners_are_of_the_same_batch() -> None:
    drawn = plan()
    for batch in drawn.batches:
        assert sorted(drawn.partners[batch].tolist()) == list(range(batch.stop - batch.start))


def test_a_plan_depends_on_seed_and_epoch_alone() -> None:
    first, again, other = plan(3).tensors(), plan(3).tensors(), plan(4).tensors()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_a_plan_survives_its_arrays() -> None:
    drawn = plan()
    back = LabelPlan.of(drawn.tensors(), batch_size=8)
    assert all(torch.equal(*pair) for pair in zip(rendered(drawn), rendered(back), strict=True))


def test_a_plan_costs_few_bytes_an_image() -> None:
    assert sum(value.nbytes for value in plan().tensors().values()) / 37 < 18


def test_an_unmixed_plan_shows_whole_images_and_an_unflipped_one_no_mirrored() -> None:
    drawn = plan(cutmix=False, flip=False)
    assert mix_shares(drawn, 16).sum() == 0 and not drawn.flips.any()
    assert plan().flips.any()


def test_shares_are_areas() -> None:
    drawn = plan()
    top, left, bottom, right = drawn.mix_boxes[1].tolist()
    assert mix_shares(drawn, 16)[1].item() == (bottom - top) * (right - left) / 256


def test_a_batch_is_the_same_alone_and_among_others() -> None:
    drawn = plan()
    alone = render(pictures(), drawn, range(2, 3), statistics=CIFAR10, device=CPU)
    assert torch.equal(alone, rendered(drawn)[2])


def test_long_epochs_are_rendered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rendered(plan())
    monkeypatch.setattr("engine.labels.RENDERED_PIXELS", 2 * 8 * 256)
    assert all(torch.equal(*pair) for pair in zip(whole, rendered(plan()), strict=True))


def test_low_precision_labels_stay_close() -> None:
    images = stored("labels")["images_mixed"]
    whole, half = (soft_labels([teacher("resnet")], images, precision=precision) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.float32 and (whole - half).abs().mean() < 0.1
