"""Contact sheets: many images as one PNG, for people who watch."""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.png import encode

GAP = 2  # px between the tiles
MAX_SHEET_TILE = 96  # px; larger images are made smaller


def contact_sheet(images: Tensor, *, columns: int) -> bytes:
    """(N, 3, H, W) uint8 -> one PNG, row by row on white, `GAP` px apart. Images above `MAX_SHEET_TILE` px are shrunk."""
    images = _small(images.cpu())
    count, _, height, width = images.shape
    rows = ceil(count / columns)
    cells = torch.full((rows * columns, 3, height + GAP, width + GAP), 255, dtype=torch.uint8)
    cells[:count, :, :height, :width] = images
    sheet = cells.view(rows, columns, 3, height + GAP, width + GAP).permute(2, 0, 3, 1, 4)
    return encode(sheet.reshape(3, rows * (height + GAP), columns * (width + GAP))[:, :-GAP, :-GAP])


def sheet_columns(count: int) -> int:
    """Tiles a row for a sheet of `count` images: up to ten."""
    return max(1, min(count, 10))


def sheet_tile(side: int) -> int:
    """The side in px at which an image of `side` px is shown on a contact sheet."""
    return min(side, MAX_SHEET_TILE)


def _small(images: Tensor) -> Tensor:
    side = sheet_tile(images.shape[2])
    if side == images.shape[2]:
        return images
    small = F.interpolate(images.float(), (side, side), mode="bilinear", align_corners=False, antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)
