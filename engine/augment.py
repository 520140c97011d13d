"""Crops, flips, rolls and CutMix: decisions are drawn in one place (`draw_*`) and applied in another.

N images, C channels, H W pixels of the source, S pixels of the square result. A box is (top, left, height, width), px.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.precision import sent

SCALE = (0.08, 1.0)  # share of the area that a random resized crop keeps
RATIO = (3 / 4, 4 / 3)  # its width over its height
ATTEMPTS = 10  # boxes tried before the centre is taken, as in torchvision


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How recovery looks at a batch in one iteration: one crop, one flip and one roll for all of its images."""

    box: tuple[int, int, int, int]  # top, left, height, width; px
    flip: bool
    roll: tuple[int, int]  # down, right; px of the result


def draw_boxes(
    count: int,
    *,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = SCALE,
    ratio: tuple[float, float] = RATIO,
) -> Tensor:
    """(count, 4) int64 boxes of random resized crops, distributed as torchvision's RandomResizedCrop draws them."""
    return _boxes(_box_chances(count, generator), height=height, width=width, scale=scale, ratio=ratio)


def _box_chances(count: int, generator: torch.Generator) -> Tensor:
    """(4, count, ATTEMPTS): area, aspect, top and left, as uniform numbers."""
    return torch.rand(4, count, ATTEMPTS, dtype=torch.float64, generator=generator)


def _boxes(
    chance: Tensor, *, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float] = RATIO
) -> Tensor:
    """(4, count, ATTEMPTS) chances -> (count, 4) int64 boxes."""
    area = height * width * (scale[0] + chance[0] * (scale[1] - scale[0]))
    aspect = torch.exp(math.log(ratio[0]) + chance[1] * (math.log(ratio[1]) - math.log(ratio[0])))
    high, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    top, left = (chance[2] * (height - high + 1)).floor(), (chance[3] * (width - wide + 1)).floor()
    fits = (high > 0) & (high <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    boxes = torch.stack([edge.gather(1, first)[:, 0] for edge in (top, left, high, wide)], 1).long()
    return torch.where(fits.any(1)[:, None], boxes, torch.tensor(_central_box(height, width, ratio)))


def draw_flips(count: int, *, generator: torch.Generator) -> Tensor:
    """(count,) bool: each mirrored left-right with probability one half."""
    return torch.rand(count, generator=generator) < 0.5


def draw_views(
    generators: Sequence[torch.Generator],
    *,
    size: int,
    crop: bool,
    flip: bool,
    jitter: int,
    least_crop: float = SCALE[0],
) -> list[View]:
    """A view for each block of size x size px, of its own generator.

    jitter: the largest roll, px; 0 for none. least_crop: share of the area.
    """
    boxes, flips = [[0, 0, size, size]] * len(generators), [False] * len(generators)
    if crop:
        chances = [_box_chances(1, generator) for generator in generators]
        boxes = _boxes(torch.cat(chances, 1), height=size, width=size, scale=(least_crop, SCALE[1])).tolist()
    if flip:
        flips = torch.cat([draw_flips(1, generator=generator) for generator in generators]).tolist()
    rolls = torch.stack([torch.randint(jitter + 1, (2,), generator=generator) for generator in generators]).tolist()
    return [
        View(box=(top, left, high, wide), flip=mirrored, roll=(down, right))
        for (top, left, high, wide), mirrored, (down, right) in zip(boxes, flips, rolls, strict=True)
    ]


def draw_mix_box(size: int, *, generator: torch.Generator) -> tuple[int, int, int, int]:
    """CutMix's rectangle for a batch: top, left, bottom, right, px; its area is drawn as Beta(1, 1), which is uniform."""
    share, row, column = torch.rand(3, dtype=torch.float64, generator=generator).tolist()
    half = int(size * math.sqrt(share)) // 2
    down, across = int(row * size), int(column * size)
    return max(down - half, 0), max(across - half, 0), min(down + half, size), min(across + half, size)


def view_weights(views: Sequence[View], images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The views of (N, C, H, W) floats as two matrices each, on their device: (G, size, H) down, (G, size, W) across.

    views: of each of G blocks. Crop, antialiased bilinear resize, flip and roll are all linear and separable.
    """
    top, left, high, wide = torch.tensor([view.box for view in views]).T
    down = resampling_weights(top, high, full=images.shape[2], size=size)
    across = resampling_weights(left, wide, full=images.shape[3], size=size)
    down = torch.stack([rows.roll(view.roll[0], 0) for rows, view in zip(down, views, strict=True)])
    across = torch.stack(
        [
            (columns.flip(0) if view.flip else columns).roll(view.roll[1], 0)
            for columns, view in zip(across, views, strict=True)
        ]
    )
    return sent(down.to(images.dtype), images.device), sent(across.to(images.dtype), images.device)


def apply_views(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """(N, C, H, W) floats, and the weights of the views of G blocks that are all as large -> (N, C, size, size).

    Two matrix products, whose gradient is the same on every run and device.
    """
    blocks, size = down.shape[:2]
    columns = images.reshape(blocks, -1, images.shape[3]) @ across.mT
    seen = down[:, None] @ columns.view(blocks, -1, images.shape[2], size)
    return seen.view(*images.shape[:2], size, size)


def crop_floats(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """(N, C, H, W) floats, (N, 4) boxes -> (N, C, size, size): each image's own crop, antialiased bilinear."""
    down, across = (weights.to(images.dtype) for weights in _weights_of(boxes, images, size))
    return torch.einsum("nsh,nchw,ntw->ncst", down, images, across)


def crop_pixels(pixels: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """(N, C, H, W) uint8, (N, 4) boxes, (N,) flips -> (N, C, size, size) float32 levels 0..255, whole numbers.

    Rounds after either axis, across first, as Pillow's bilinear resize of 8-bit images does: within one level of it.
    """
    down, across = _weights_of(boxes, pixels, size)
    across = torch.where(sent(flips, pixels.device)[:, None, None], across.flip(1), across).float()
    level = torch.einsum("nchw,ntw->ncht", pixels.float(), across).add_(0.5).floor_()
    return torch.einsum("nsh,ncht->ncst", down.float(), level).add_(0.5).floor_()


def resampling_weights(start: Tensor, length: Tensor, *, full: int, size: int) -> Tensor:
    """(N, size, full) float64: row i says how much each of `full` source pixels counts in pixel i of the result.

    start, length: (N,) the part of the source axis that is cropped; nothing outside of it is looked at. The filter is
    the triangle of Pillow's and torchvision's antialiased bilinear resize, as wide as the pixels are apart.
    """
    start, length = start.double()[:, None, None], length.double()[:, None, None]
    scale = length / size
    centre = (torch.arange(size, device=start.device)[:, None] + 0.5) * scale
    position = torch.arange(full, device=start.device) + 0.5 - start
    weights = (1 - (position - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((position > 0) & (position < length))
    return weights / weights.sum(2, keepdim=True)


def paste(images: Tensor, partners: Tensor, boxes: Tensor) -> Tensor:
    """CutMix: (N, C, S, S) -> the same, with each image's rectangle taken from its partner.

    partners: (N,) indices into the images. boxes: (N, 4) top, left, bottom, right, px; empty for no mixing.
    """
    top, left, bottom, right = sent(boxes, images.device).T[:, :, None]
    row, column = (torch.arange(side, device=images.device) for side in images.shape[2:])
    inside = ((row >= top) & (row < bottom))[:, :, None] & ((column >= left) & (column < right))[:, None, :]
    return torch.where(inside[:, None], images[sent(partners, images.device)], images)


def _weights_of(boxes: Tensor, images: Tensor, size: int) -> tuple[Tensor, Tensor]:
    top, left, high, wide = sent(boxes, images.device).T
    down = resampling_weights(top, high, full=images.shape[2], size=size)
    return down, resampling_weights(left, wide, full=images.shape[3], size=size)


def _central_box(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest centred box of an allowed shape: what is taken when no random one fitted."""
    wide = min(width, round(height * ratio[1]))
    high = min(height, round(width / ratio[0]))
    return (height - high) // 2, (width - wide) // 2, high, wide
