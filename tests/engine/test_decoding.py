"""Any image file becomes a square of 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.decoding import opened, square
from engine.upright import UNREADABLE
from tests.engine.pictures import photo

RED = (200, 40, 30)


def _mean(pixels: torch.Tensor) -> list[float]:
    return pixels.float().mean((1, 2)).tolist()


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("RGB", "jpg"), ("RGB", "bmp"), ("RGB", "webp")],
)
def test_every_mode_of_a_colour_image_is_that_colour(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image.{suffix}"
    photo(RED, 0).convert(mode).save(path)
    pixels = square(opened(path), 24)
    assert pixels.shape == (3, 24, 24) and pixels.dtype == torch.uint8
    assert _mean(pixels) == pytest.approx(RED, abs=12)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_greys_are_equal_in_all_channels(tmp_path: Path, mode: str) -> None:
    photo(RED, 0).convert(mode).save(tmp_path / "image.png")
    red, green, blue = square(opened(tmp_path / "image.png"), 16)
    assert torch.equal(red, green) and torch.equal(green, blue)


def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "image.png")
    pixels = square(opened(tmp_path / "image.png"), 64)
    assert torch.equal(pixels[0], torch.from_numpy((levels / 257).round().astype(np.uint8)))


def test_what_is_transparent_lies_on_white() -> None:
    pixels = square(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 8)
    assert (pixels == 255).all()


def test_a_palette_with_transparency_lies_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30] * 256)
    image.save(tmp_path / "image.png", transparency=0)
    assert (square(opened(tmp_path / "image.png"), 8) == 255).all()


def test_a_camera_held_upright_gives_an_upright_image(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 40), "black")
    image.paste("white", (0, 0, 40, 20))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "image.jpg", exif=exif)
    pixels = square(opened(tmp_path / "image.jpg"), 40)
    assert pixels[:, :18].float().mean() < 10 and pixels[:, 22:].float().mean() > 245


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (33, 32), (224, 225)])
def test_any_size_becomes_the_square(size: tuple[int, int]) -> None:
    assert square(photo(RED, 0, size), 32).shape == (3, 32, 32)


def test_an_image_of_that_size_is_left_as_it_is() -> None:
    image = photo(RED, 0, (16, 16))
    assert torch.equal(square(image, 16), torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))


def test_the_middle_is_cut_out() -> None:
    image = Image.new("RGB", (96, 32), "black")
    image.paste("white", (32, 0, 64, 32))
    assert (square(image, 32) == 255).all()


def test_large_test_images_leave_a_margin() -> None:
    image = Image.new("RGB", (256, 256), "black")
    image.paste("white", (16, 16, 240, 240))
    assert (square(image, 224, margin=True) == 255).all()


@pytest.mark.parametrize("damage", ["truncated", "no image", "empty"])
def test_a_damaged_file_is_an_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "image.jpg"
    photo(RED, 0, (64, 64)).save(path)
    data = {"truncated": path.read_bytes()[:-200], "no image": b"<html>404</html>", "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(UNREADABLE):
        opened(path)


def test_an_image_of_a_gigapixel_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (20_000, 5_001)).save(tmp_path / "image.png")
    with pytest.raises(UNREADABLE, match="more than 100,000,000"), pytest.warns(Image.DecompressionBombWarning):
        opened(tmp_path / "image.png")


def test_an_image_of_one_pixel_by_thousands_does_not_fill_the_memory() -> None:
    with pytest.raises(ValueError, match="60000x1 pixels are too long and narrow for a square of 224"):
        square(Image.new("L", (60_000, 1)), 224)
