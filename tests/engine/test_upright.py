"""Which side of an image is up, whatever its EXIF says."""

from pathlib import Path

import pytest
from PIL import Image, ImageOps

from app.cleaning import clean
from app.folder_preview import GREY, TILE, _tile
from engine.decoding import opened, square
from engine.upright import side_up, upright

DAMAGED = (  # Pillow reads the side from them, or fails, and cannot write them anew
    (
        "49492a0008000000030012010300010000000600000005a00c00010000001a0000006987040001000000ffffffff00000000dd0a7309cb4a1252"
        "e4da70e6720fcaa4da1e9840"
    ),
    (
        "49492a000800000003001201030001000000060000000f01050002000000010000000001070000000000ffffffff00000000771ee3536accee3f"
        "a1864656a8435c9d77daefea"
    ),
    "49492a00ffffffff",
    "ff",
)


def two_halves() -> Image.Image:
    image = Image.new("RGB", (48, 32), (200, 0, 0))
    image.paste((0, 0, 200), (0, 0, 48, 16))
    return image


@pytest.mark.parametrize("side", [*range(1, 9), 0, 9])
def test_the_picture_is_turned_as_pillow_turns_it(tmp_path: Path, side: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = side
    two_halves().save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as image:
        assert side_up(image) == (side if side in range(1, 9) else 1)
        assert upright(image).tobytes() == ImageOps.exif_transpose(image).tobytes()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("block", DAMAGED)
def test_an_image_with_damaged_exif_is_read_all_the_same(tmp_path: Path, block: str) -> None:
    path = tmp_path / "image.jpg"
    two_halves().save(path, exif=b"Exif\0\0" + bytes.fromhex(block))
    assert square(opened(path), 16).shape == (3, 16, 16)
    assert clean(path.read_bytes())
    assert _tile(path).getpixel((TILE // 2, TILE // 2)) != GREY
