"""Contact sheets become a film."""

from __future__ import annotations

import io

from PIL import Image

from app.results.film import LAST_MS, LEAST_PX, film


def sheet(colour: str, width: int = 40) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, 20), colour).save(file, "PNG")
    return file.getvalue()


def test_a_film_has_a_frame_a_sheet_and_rests_on_the_last() -> None:
    found = Image.open(io.BytesIO(film([(0, 100, sheet("red")), (50, 100, sheet("green")), (100, 100, sheet("blue"))])))
    assert found.n_frames == 3 and found.width == LEAST_PX  # type: ignore[attr-defined]
    found.seek(2)
    found.load()
    assert found.info["duration"] == LAST_MS
    red, green, blue = found.convert("RGB").getpixel((10, 10))  # type: ignore[misc]
    assert blue > 200 > red + green


def test_large_sheets_keep_their_size() -> None:
    assert Image.open(io.BytesIO(film([(0, 1, sheet("red", 640))]))).width == 640
