"""How any image file becomes a square of 8-bit RGB, with Pillow: the download's own loader uses this file too.

S pixels of the square result.
"""

from pathlib import Path
from typing import BinaryIO

import torch
from PIL import Image
from torch import Tensor

from engine.upright import upright

TEST_MARGIN = 256 / 224  # large test images are resized to this much more than what is cut out of their middle
MAX_PIXELS = 100_000_000  # of one image: more is taken for an attack on the memory


def opened(file: Path | BinaryIO) -> Image.Image:
    """An image, decoded whole. Raises one of upright.UNREADABLE when it is damaged or too large."""
    with Image.open(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        return image


def square(image: Image.Image, resolution: int, *, margin: bool = False) -> Tensor:
    """Any image -> (3, S, S) uint8: upright, RGB, shorter side resized (bilinear), the middle cut out.

    margin: cut it out of a slightly larger one, as large test images are. Raises one of upright.UNREADABLE.
    """
    image = as_rgb(upright(image))
    shorter = round(resolution * TEST_MARGIN) if margin else resolution
    scale = shorter / min(image.size)
    size = (max(round(image.width * scale), shorter), max(round(image.height * scale), shorter))
    if size[0] * size[1] > MAX_PIXELS:  # a line of one pixel by thousands, enlarged
        raise ValueError(f"{image.width}x{image.height} pixels are too long and narrow for a square of {resolution}")
    image = image.resize(size, Image.Resampling.BILINEAR) if size != image.size else image
    left, top = (image.width - resolution) // 2, (image.height - resolution) // 2
    image = image.crop((left, top, left + resolution, top + resolution))
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(resolution, resolution, 3).permute(2, 0, 1)


def as_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: 16-bit greys are scaled, not cut off; what is transparent lies on white."""
    if image.mode.startswith("I"):
        levels = torch.frombuffer(bytearray(image.convert("I").tobytes()), dtype=torch.int32).clamp(0, 65535)
        grey = (levels.double() / 257).round().to(torch.uint8)
        return Image.frombytes("L", image.size, bytes(grey.tolist())).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
