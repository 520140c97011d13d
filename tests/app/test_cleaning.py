"""Uploaded images keep their pixels, the same way up, and nothing else."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from app.cleaning import FORMATS, clean
from tests.app.archives import archive, png
from tests.engine.pictures import COLOURS, photo

SECRET = b"51.5007N 0.1246W"
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    image = photo(COLOURS["ant"], 1, size)
    if mode in {"LA", "RGBA"}:
        image = image.convert(mode)
        image.putalpha(Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0])))
        return image
    if mode == "I;16":
        return Image.fromarray(np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[1], size[0]) * 50)
    return image.convert(mode)


def exif(upright: int = 1) -> Image.Exif:
    found = Image.Exif()
    found[ExifTags.Base.Orientation] = upright
    found[ExifTags.Base.ImageDescription] = SECRET.decode()
    return found


def saved(image: Image.Image, form: str, **more: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **more)
    return made.getvalue()


def noted() -> PngImagePlugin.PngInfo:
    found = PngImagePlugin.PngInfo()
    found.add_text("where", SECRET.decode())
    return found


def pixels(data: bytes) -> bytes:
    """What a file decodes to, upright, with what is transparent: all that the engine begins with."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        image.load()
        upright = ImageOps.exif_transpose(image)
        levels = upright if upright.mode.startswith("I") else upright.convert("RGBA")
        return repr((upright.mode.startswith("I"), upright.size)).encode() + levels.tobytes()


def jpeg(mode: str = "RGB", **more: Any) -> bytes:
    return saved(picture(mode), "JPEG", quality=90, exif=exif(), icc_profile=PROFILE, comment=SECRET, **more)


def indexed(**more: Any) -> bytes:
    return saved(picture().quantize(16), "PNG", pnginfo=noted(), **more)


def two_in_one() -> bytes:
    second = picture(size=(40, 30)).transpose(Image.Transpose.ROTATE_180)
    return saved(picture(), "MPO", save_all=True, append_images=[second], exif=exif(6))


FILES: dict[str, Callable[[], bytes]] = {
    "JPEG": jpeg,
    "progressive": lambda: jpeg(progressive=True),
    "grey": lambda: jpeg("L"),
    "of four colours": lambda: jpeg("CMYK"),
    "with restarts": lambda: jpeg(restart_marker_rows=1),
    "without subsampling": lambda: jpeg(subsampling=0, optimize=True),
    "with a zip behind it": lambda: jpeg() + archive(),
    "with a thumbnail": lambda: jpeg()[:18] + b"\x01\x01" + jpeg()[20:],
    "several pictures": two_in_one,
    **{f"turned {n}": (lambda n=n: saved(picture(), "JPEG", exif=exif(n))) for n in range(1, 9)},  # type: ignore[misc]
    "PNG": lambda: saved(picture(), "PNG", pnginfo=noted(), icc_profile=PROFILE, exif=exif(8)),
    "PNG with transparency": lambda: saved(picture("RGBA"), "PNG", pnginfo=noted()),
    "PNG of two bytes": lambda: saved(picture("I;16"), "PNG", pnginfo=noted()),
    "PNG of grey and transparency": lambda: saved(picture("LA"), "PNG", pnginfo=noted()),
    "PNG of one bit": lambda: saved(picture("1"), "PNG", pnginfo=noted()),
    "PNG of a palette": indexed,
    "PNG of a palette with holes": lambda: indexed(transparency=3),
    "PNG with a colour that is a hole": lambda: saved(picture(), "PNG", transparency=picture().getpixel((0, 0))),
    "PNG with a zip behind it": lambda: saved(picture(), "PNG") + archive(),
    "BMP": lambda: saved(picture(), "BMP") + SECRET,
    "BMP of a palette": lambda: saved(picture("P"), "BMP"),
    "lossy WebP": lambda: saved(picture(), "WEBP", exif=exif(), icc_profile=PROFILE, xmp=SECRET) + archive(),
    "lossy WebP, turned": lambda: saved(picture(), "WEBP", exif=exif(6)),
    "lossy WebP with transparency": lambda: saved(picture("RGBA"), "WEBP", exif=exif(), quality=80),
    "WebP without loss": lambda: saved(picture("RGBA"), "WEBP", lossless=True, exif=exif()),
    "several WebP": lambda: saved(picture(), "WEBP", save_all=True, append_images=[picture(size=(40, 30))]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_pixels_stay_and_nothing_else_does(name: str) -> None:
    given = FILES[name]()
    kept = clean(given)
    assert pixels(kept) == pixels(given)
    for unwanted in (SECRET, PROFILE[:100], b"PK\x03\x04", b"where", b"MPF"):
        assert unwanted not in kept
    assert kept == clean(kept), "what is clean stays as it is"


@pytest.mark.parametrize("name", ["JPEG", "progressive", "lossy WebP"])
def test_lossy_files_grow_by_nothing(name: str) -> None:
    assert len(clean(FILES[name]())) < len(FILES[name]())


def test_a_file_that_was_cut_off_stays_one() -> None:
    for given in (jpeg()[:-300], saved(picture(size=(300, 300)), "JPEG")[:-500], png()[:-40], jpeg()[:200]):
        with pytest.raises((OSError, SyntaxError)):
            clean(given)


def test_what_hides_in_a_chunk_of_a_picture_is_gone_with_it() -> None:
    """A PNG may hold any chunk; a program that reads the file otherwise finds none."""
    hidden = b"<?php system($_GET[0]);"
    given = png()
    chunk = b"prVt" + hidden
    given = given[:33] + len(hidden).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") + given[33:]
    assert hidden not in clean(given) and pixels(clean(given)) == pixels(given)
    given = jpeg()
    given = given[:2] + b"\xff\xef" + (len(hidden) + 2).to_bytes(2, "big") + hidden + given[2:]
    assert hidden not in clean(given) and pixels(clean(given)) == pixels(given)
