"""PNG files without a library: any program reads them, and they come back as they were."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engine.png import decode, encode


def _pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _as_pillow_sees(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 32)])
def test_pillow_and_we_read_what_we_write(size: tuple[int, int]) -> None:
    pixels = _pixels(3, *size)
    assert torch.equal(_as_pillow_sees(encode(pixels)), pixels)
    assert torch.equal(decode(encode(pixels)), pixels)


def test_equal_pixels_give_equal_bytes() -> None:
    pixels = _pixels(3, 9, 9)
    assert encode(pixels) == encode(pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1))


def test_a_png_that_was_saved_again_is_refused_with_the_remedy() -> None:
    buffer = io.BytesIO()
    ramp = torch.arange(64, dtype=torch.uint8).expand(64, 64).unsqueeze(2).expand(64, 64, 3)
    Image.fromarray(ramp.contiguous().numpy()).save(buffer, "PNG")
    with pytest.raises(ValueError, match="use Pillow"):
        decode(buffer.getvalue())


def test_other_kinds_of_png_are_refused() -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    with pytest.raises(ValueError, match="8-bit RGB"):
        decode(buffer.getvalue())
    with pytest.raises(ValueError, match="no PNG"):
        decode(b"GIF89a")
