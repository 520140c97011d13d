"""Between 8-bit pixels and the normalised images that networks see. N images, C channels, H W pixels."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.datasets import Statistics
from engine.precision import sent

Rounding = Literal["nearest", "floor"]


def normalised(levels: Tensor, statistics: Statistics) -> Tensor:
    """(..., C, H, W) levels 0..255 in any dtype -> float32 without a unit: (level / 255 - mean) / std."""
    mean, std = per_channel(statistics, levels.device)
    return (levels.float() / 255 - mean) / std


def denormalised(images: Tensor, statistics: Statistics) -> Tensor:
    """(..., C, H, W) normalised -> intensities 0..1; what lies outside is cut off."""
    mean, std = per_channel(statistics, images.device)
    return (images * std + mean).clamp(0, 1)


def to_pixels(intensities: Tensor, *, rounding: Rounding = "nearest") -> Tensor:
    """(..., C, H, W) intensities 0..1 -> uint8. The authors' code floors, which darkens by half a level."""
    levels = intensities * 255
    return (levels.round() if rounding == "nearest" else levels.floor()).to(torch.uint8)


def limits(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normalised black and white, each (C, 1, 1): recovery clips to them after each step."""
    mean, std = per_channel(statistics, device)
    return -mean / std, (1 - mean) / std


def resized(images: Tensor, size: int) -> Tensor:
    """(N, C, H, W) -> (N, C, size, size), bilinear without antialias: how the authors change resolution at injection."""
    if images.shape[2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=False)


def per_channel(statistics: Statistics, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of intensities, each (C, 1, 1) float32."""
    mean, std = sent(torch.tensor(statistics), device)[:, :, None, None]
    return mean, std
