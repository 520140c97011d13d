"""Patches: RDED's scores and choice to the index, other difficulties, and what becomes of too few images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.patches import Chosen, Difficulty, choose, cut, draw_crops, padded, ranks, score, tiled
from engine.pixels import denormalised, to_pixels
from engine.randomness import generator
from tests.engine.golden import IMAGENET, stored, teacher

RUNS = {"f1": (32, 32, 0, 1, 5), "f2": (32, 64, 3, 2, 2)}  # crop px, network px, label, factor, ipc


def scored(run: str) -> tuple[Tensor, Tensor]:
    """Crops (12, 5, 3, s, s) and scores (12, 5) of the authors' boxes."""
    size, side, label, _, _ = RUNS[run]
    tensors = stored("rded")
    crops = cut(tensors[f"{run}.images_u8"], tensors[f"{run}.crop_ijhw"], size=size, statistics=IMAGENET)
    return crops, score(teacher("resnet"), crops.flatten(0, 1), label, side=side).view(12, 5)


def chosen(run: str) -> Chosen:
    _, _, _, factor, ipc = RUNS[run]
    return choose(scored(run)[1], stored("rded")[f"{run}.crop_ijhw"], ipc * factor**2, "easy", torch.Generator())


def pieces(run: str) -> Tensor:
    """The chosen crops, cut again from what is stored of them: image and box."""
    images = stored("rded")[f"{run}.images_u8"][chosen(run).images]
    return cut(images, chosen(run).boxes[:, None], size=RUNS[run][0], statistics=IMAGENET)[:, 0]


@pytest.mark.parametrize(("run", "name"), [("f1", "f1.crops"), ("f2", "f2.crops_first4_images")])
def test_crops_are_rdeds(run: str, name: str) -> None:
    expected = stored("rded")[name]
    torch.testing.assert_close(scored(run)[0][: len(expected)], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("run", RUNS)
def test_scores_are_rdeds(run: str) -> None:
    torch.testing.assert_close(scored(run)[1], stored("rded")[f"{run}.scores"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("run", RUNS)
def test_the_choice_is_rdeds(run: str) -> None:
    tensors, choice = stored("rded"), chosen(run)
    assert torch.equal(choice.images, tensors[f"{run}.chosen_images"])
    best = tensors[f"{run}.chosen_crop"][choice.images]
    assert torch.equal(choice.boxes, tensors[f"{run}.crop_ijhw"][choice.images, best])
    torch.testing.assert_close(choice.scores, tensors[f"{run}.chosen_score"][choice.images], atol=1e-4, rtol=0)


@pytest.mark.parametrize("run", RUNS)
def test_patches_can_be_cut_again_from_what_is_kept_of_them(run: str) -> None:
    torch.testing.assert_close(pieces(run), stored("rded")[f"{run}.chosen_crops"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("run", RUNS)
def test_tiled_pictures_are_rdeds(run: str) -> None:
    images = tiled(pieces(run), RUNS[run][3])
    pixels = to_pixels(denormalised(images, IMAGENET), rounding="floor")
    assert (pixels.int() - stored("rded")[f"{run}.tiled_denormalised_u8"].int()).abs().max() <= 1


def test_tiles_are_n_ranks_apart() -> None:
    crops = torch.arange(8.0)[:, None, None, None].expand(8, 1, 2, 2).contiguous()
    images = tiled(crops, 2)
    assert images.shape == (2, 1, 4, 4)
    assert images[1, 0, ::2, ::2].tolist() == [[1, 3], [5, 7]]
    assert torch.equal(tiled(crops, 1), crops)


def test_small_crops_are_scored_in_the_middle_of_zeros() -> None:
    crops = stored("rded")["f2.crops_first4_images"]
    torch.testing.assert_close(padded(crops[0, :1], 64), stored("rded")["f2.padded_first_crop"], atol=0, rtol=0)
    assert padded(crops[0, :1], 32) is not None and torch.equal(padded(crops[0], 32), crops[0])
    assert padded(torch.ones(1, 1, 2, 2), 5)[0, 0].sum(0).tolist() == [0, 2, 2, 0, 0]


@pytest.mark.parametrize(
    ("difficulty", "count", "order"),
    [
        ("easy", 5, [0, 1, 2, 3, 4]),
        ("hard", 5, [4, 3, 2, 1, 0]),
        ("medium", 5, [2, 1, 3, 0, 4]),
        ("medium", 4, [1, 2, 0, 3]),
        ("medium", 1, [0]),
    ],
)
def test_difficulty_is_where_in_the_ranking_choosing_begins(
    difficulty: Difficulty, count: int, order: list[int]
) -> None:
    assert ranks(count, difficulty, torch.Generator()).tolist() == order


def test_a_random_choice_depends_on_its_generator_alone() -> None:
    first, second, other = (ranks(50, "random", generator(seed, "patches")) for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert sorted(first.tolist()) == list(range(50))


def test_each_image_gives_its_easiest_crop_alone() -> None:
    scores = torch.tensor([[0.3, 0.1, 0.2], [0.6, 0.5, 0.4], [0.0, 0.9, 0.9]])
    boxes = torch.arange(9).view(3, 3, 1).expand(3, 3, 4)
    choice = choose(scores, boxes, 2, "medium", torch.Generator())
    assert choice.images.tolist() == [0, 2] and choice.boxes[:, 0].tolist() == [1, 6]
    torch.testing.assert_close(choice.scores, torch.tensor([0.1, 0.0]))


def test_crops_are_square_and_inside() -> None:
    boxes = draw_crops(40, 5, height=64, width=48, generator=generator(0, "patches"))
    assert boxes.shape == (40, 5, 4)
    top, left, high, wide = boxes.view(-1, 4).T
    assert torch.equal(high, wide)
    assert (top + high <= 64).all() and (left + wide <= 48).all() and (high >= 13).all()


def test_scores_do_not_depend_on_the_batch_they_were_made_in() -> None:
    crops, scores = scored("f1")
    alone = score(teacher("resnet"), crops[3], 0, side=32)
    torch.testing.assert_close(alone, scores[3], atol=1e-5, rtol=0)
