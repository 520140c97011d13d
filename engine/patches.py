"""Which crops of real images the synthetic ones start from: scored by a teacher, chosen by rank (RDED, arXiv 2312.03526).

N images of one class, P crops of each, C channels, H W pixels, S pixels a side of a synthetic image, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.augment import crop_floats, draw_boxes
from engine.datasets import Statistics
from engine.networks import looked_at_together
from engine.pixels import normalised
from engine.precision import Precision, computing

SQUARE = (1.0, 1.0)  # width over height of a crop

Difficulty = Literal["easy", "medium", "hard", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The patches of one class, in the order in which they become images."""

    images: Tensor  # (R,) int64: which of the class's candidates
    boxes: Tensor  # (R, 4) int64: top, left, height, width, px
    scores: Tensor  # (R,) float32: cross-entropy of the true class, nats; high is hard for the teacher


def draw_crops(count: int, crops: int, *, height: int, width: int, generator: torch.Generator) -> Tensor:
    """(count, crops, 4) square boxes of 8 to 100 % of the area: P random crops of each image."""
    boxes = draw_boxes(count * crops, height=height, width=width, ratio=SQUARE, generator=generator)
    return boxes.view(count, crops, 4)


def cut(images: Tensor, boxes: Tensor, *, size: int, statistics: Statistics) -> Tensor:
    """(N, C, H, W) uint8, (N, P, 4) boxes -> (N, P, C, size, size): normalised crops, resized with antialias."""
    count, crops = boxes.shape[:2]
    intensities = (images.float() / 255).repeat_interleave(crops, 0)
    cropped = crop_floats(intensities, boxes.view(-1, 4), size)
    return normalised(cropped * 255, statistics).view(count, crops, *cropped.shape[1:])


def score(teacher: nn.Module, crops: Tensor, label: int, *, side: int, precision: Precision = "fp32") -> Tensor:
    """(R, C, s, s) normalised crops of one class -> (R,) cross-entropy of that class, nats, teacher in eval mode.

    Crops smaller than side px are put in the middle of zeros first. Source: RDED synthesize/main.py.
    """
    scores = []
    for part in torch.split(padded(crops, side), looked_at_together(side, crops.device.type)):
        with torch.no_grad(), computing(precision, part.device):
            logits = teacher(part.contiguous(memory_format=torch.channels_last))
        truth = torch.full((len(part),), label, device=part.device)
        scores.append(F.cross_entropy(logits.float(), truth, reduction="none"))
    return torch.cat(scores)


def padded(crops: Tensor, side: int) -> Tensor:
    """(R, C, s, s) -> (R, C, side, side): zeros around, the odd pixel at the bottom and right."""
    before = (side - crops.shape[-1]) // 2
    after = side - crops.shape[-1] - before
    return F.pad(crops, (before, after, before, after))


def choose(scores: Tensor, boxes: Tensor, count: int, difficulty: Difficulty, generator: torch.Generator) -> Chosen:
    """Rank N >= count images by their easiest crop, and take the easiest crops of `count` of them.

    scores: (N, P) nats. boxes: (N, P, 4) px. The easiest crop of each image and the ranking are RDED's.
    """
    scores = scores.cpu()
    easiest = scores.argsort(dim=1, stable=True)[:, 0]
    by_ease = scores.gather(1, easiest[:, None])[:, 0].argsort(stable=True)
    images = by_ease[ranks(len(scores), difficulty, generator)][:count]
    crops = easiest[images]
    return Chosen(images=images, boxes=boxes[images, crops], scores=scores[images, crops])


def ranks(count: int, difficulty: Difficulty, generator: torch.Generator) -> Tensor:
    """(count,) ranks, 0 the easiest, in the order in which they are wanted.

    easy: from the first (RDED). medium: from the centre outwards, alternately (DELT's reading; FADRM's own is
    unpublished). hard: from the last. random: drawn.
    """
    match difficulty:
        case "easy":
            return torch.arange(count)
        case "medium":
            return torch.tensor(sorted(range(count), key=lambda rank: (abs(2 * rank - count + 1), rank)))
        case "hard":
            return torch.arange(count).flip(0)
        case "random":
            return torch.randperm(count, generator=generator)


def tiled(crops: Tensor, factor: int) -> Tensor:
    """(R, C, s, s) in order of choice -> (R / factor**2, C, factor s, factor s).

    With n images to be made, image j is tiled from crops j, j+n, j+2n, ... row by row. Source: RDED, mix_images.
    """
    images = len(crops) // factor**2
    grid = crops.view(factor, factor, images, *crops.shape[1:])  # tile row, tile column, image, C, s, s
    return torch.cat([torch.cat(list(row), -1) for row in grid], -2)
