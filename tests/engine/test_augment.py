"""Crops, flips, rolls, CutMix: what torchvision, Pillow and the authors' code make of the same decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from engine.augment import (
    View,
    apply_views,
    crop_floats,
    crop_pixels,
    draw_boxes,
    draw_flips,
    draw_mix_box,
    draw_views,
    paste,
    view_weights,
)
from engine.randomness import generator
from tests.engine.golden import stored


def _seen(images: Tensor, views: Sequence[View], size: int) -> Tensor:
    return apply_views(images, *view_weights(views, images, size))


def pictures(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def by_pillow(image: Tensor, box: list[int], flip: bool, size: int) -> Tensor:
    top, left, high, wide = box
    cropped = Image.fromarray(image.permute(1, 2, 0).numpy()).crop((left, top, left + wide, top + high))
    resized = torch.from_numpy(np.array(cropped.resize((size, size), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    return resized.flip(2) if flip else resized


def by_torch(image: Tensor, box: list[int], size: int) -> Tensor:
    top, left, high, wide = box
    cropped = image[None, :, top : top + high, left : left + wide]
    return F.interpolate(cropped, (size, size), mode="bilinear", antialias=True)[0]


@pytest.mark.parametrize(("side", "size"), [(32, 32), (64, 64), (64, 32), (32, 64), (60, 45)])
def test_crops_of_pixels_are_within_one_level_of_pillows(side: int, size: int) -> None:
    images, chance = pictures(30, side), generator(0, "test")
    boxes, flips = draw_boxes(30, height=side, width=side, generator=chance), draw_flips(30, generator=chance)
    ours = crop_pixels(images, boxes, flips, size)
    theirs = torch.stack(
        [
            by_pillow(image, box, flip, size)
            for image, box, flip in zip(images, boxes.tolist(), flips.tolist(), strict=True)
        ]
    )
    difference = (ours - theirs).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.1


def test_the_authors_crops_are_reproduced_to_the_level() -> None:
    tensors = stored("labels")
    pixels = tensors["images_u8"][tensors["order"]]
    ours = crop_pixels(pixels, tensors["crop_ijhw"], tensors["flip"].bool(), 32)
    assert torch.equal(ours, tensors["augmented_u8"].float())


@pytest.mark.parametrize("size", [20, 32, 50])
def test_crops_of_floats_are_torchvisions(size: int) -> None:
    images = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    boxes = draw_boxes(12, height=32, width=32, generator=generator(0, "test"))
    theirs = torch.stack([by_torch(image, box, size) for image, box in zip(images, boxes.tolist(), strict=True)])
    torch.testing.assert_close(crop_floats(images, boxes, size), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("step", [0, 2])
def test_a_view_is_what_the_authors_network_saw(step: int) -> None:
    tensors = stored("recover_augmented")
    images = tensors["images_start"] if step == 0 else tensors["inject0.result"]
    top, left, high, wide = tensors["crop_ijhw"][step].tolist()
    down, right = tensors["roll"][step].tolist()
    view = View(box=(top, left, high, wide), flip=bool(tensors["flip"][step]), roll=(down, right))
    seen = _seen(images, [view], images.shape[-1])
    torch.testing.assert_close(seen, tensors[f"iter{step:02d}.network_input"], atol=1e-5, rtol=0)


def test_a_view_of_everything_changes_nothing() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(_seen(images, [View(box=(0, 0, 16, 16), flip=False, roll=(0, 0))], 16), images)


def test_a_view_flips_and_then_rolls() -> None:
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    seen = _seen(images, [View(box=(0, 0, 16, 16), flip=True, roll=(3, 5))], 16)
    assert torch.equal(seen, images.flip(3).roll((3, 5), (2, 3)))


def test_each_block_is_seen_through_its_own_view() -> None:
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    views = draw_views([generator(0, "t", i) for i in range(2)], size=16, crop=True, flip=True, jitter=4)
    apart = [_seen(part, [view], 12) for part, view in zip(images.chunk(2), views, strict=True)]
    torch.testing.assert_close(_seen(images, views, 12), torch.cat(apart), atol=1e-6, rtol=0)


def test_only_the_pixels_in_the_box_get_a_gradient() -> None:
    images = torch.zeros(1, 1, 16, 16, requires_grad=True)
    seen = _seen(images, [View(box=(2, 3, 8, 6), flip=False, roll=(0, 0))], 16)
    (gradient,) = torch.autograd.grad(seen.sum(), images)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:10, 3:9] = True
    assert torch.equal(gradient[0, 0] != 0, inside)


def test_boxes_are_distributed_as_torchvisions() -> None:
    count, chance = 4000, generator(0, "test")
    ours = draw_boxes(count, height=40, width=32, generator=chance).double()
    blank = torch.empty(3, 40, 32)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        theirs = torch.tensor(
            [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
        ).double()
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.5, rtol=0)
    torch.testing.assert_close(ours.std(0), theirs.std(0), atol=0.5, rtol=0)
    area = [boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs)]
    torch.testing.assert_close(area[0].quantile(0.9), area[1].quantile(0.9), rtol=0.05, atol=0)


def test_boxes_lie_inside_the_image() -> None:
    top, left, high, wide = draw_boxes(500, height=17, width=9, generator=generator(0, "test")).T
    assert (top >= 0).all() and (left >= 0).all() and (high > 0).all() and (wide > 0).all()
    assert (top + high <= 17).all() and (left + wide <= 9).all()


def test_where_no_box_fits_the_centre_is_taken() -> None:
    boxes = draw_boxes(3, height=10, width=100, scale=(1.0, 1.0), generator=generator(0, "test"))
    assert boxes.tolist() == [[0, 43, 10, 13]] * 3


def test_a_view_is_decided_by_its_generator() -> None:
    views = draw_views([generator(0, "t", i) for i in (1, 1, 2)], size=32, crop=True, flip=True, jitter=4)
    assert views[0] == views[1] != views[2]


def test_what_is_off_is_not_drawn() -> None:
    views = draw_views([generator(0, "t", i) for i in range(9)], size=32, crop=False, flip=False, jitter=0)
    assert set(views) == {View(box=(0, 0, 32, 32), flip=False, roll=(0, 0))}


def test_every_roll_up_to_the_jitter_occurs() -> None:
    views = draw_views([generator(0, "t", i) for i in range(99)], size=32, crop=False, flip=False, jitter=4)
    assert {view.roll[0] for view in views} == {view.roll[1] for view in views} == {0, 1, 2, 3, 4}


def test_cutmix_boxes_cover_half_of_the_area_on_average_before_they_are_cut_at_the_edge() -> None:
    boxes = [draw_mix_box(32, generator=generator(0, "t", i)) for i in range(2000)]
    assert all(0 <= top <= bottom <= 32 and 0 <= left <= right <= 32 for top, left, bottom, right in boxes)
    shares = [(bottom - top) * (right - left) / 1024 for top, left, bottom, right in boxes]
    assert sum(shares) / len(shares) == pytest.approx(0.296, abs=0.02)  # by integration over both axes


def test_mixing_pastes_each_partners_rectangle() -> None:
    images = torch.arange(3.0)[:, None, None, None].expand(3, 1, 4, 4).contiguous()
    boxes = torch.tensor([[0, 0, 2, 2], [1, 1, 1, 4], [0, 0, 4, 4]])
    mixed = paste(images, torch.tensor([2, 0, 1]), boxes)
    assert torch.equal(mixed[0, 0, :2, :2], torch.full((2, 2), 2.0)) and mixed[0].sum() == 8
    assert torch.equal(mixed[1], images[1])
    assert torch.equal(mixed[2], images[1])
