"""What keeping an uploaded image without all around its picture costs: `python -m benchmarks.cleaning`.

Images are cut out of the two photographs that scikit-learn ships, so that anybody measures the same; seconds are of computing,
so that a busy machine measures the same. Beside it: a PNG of everything, which is what was not chosen.
"""

from __future__ import annotations

import io
import random
import time
from collections.abc import Callable, Sequence
from importlib.resources import files

from PIL import Image

from app.cleaning import LEVEL, clean

SOURCES = ("china.jpg", "flower.jpg")
SETS = ((2000, 64, 128), (500, 500, 400))  # images, px a side, px that are cut out for one
FORMS = {"JPEG": {"quality": 90}, "PNG": {}}
AS_PNG = 100  # of JPEG files that are also made PNG


def main() -> None:
    """Measure, and print a table."""
    print("| Images | Form | MB before | MB after | s to decode | s to clean | as PNG: MB | s |\n" + "|---" * 8 + "|")
    for count, side, cut in SETS:
        for form, more in FORMS.items():
            sent = [_saved(image, form, more) for image in _images(count if form == "JPEG" else count // 5, side, cut)]
            times = count / len(sent)
            before, after = _seconds(sent, _decode), _seconds(sent, clean)
            size, kept = sum(map(len, sent)) * times, sum(len(clean(data)) for data in sent) * times
            few = sent[:AS_PNG]
            as_png = _seconds(few, _as_png) * count / len(few)
            png_size = sum(len(_as_png(data)) for data in few) * count / len(few)
            figures = (size / 1e6, kept / 1e6, before * times, after * times, png_size / 1e6, as_png)
            print(
                f"| {count:,} of {side} px | {form} | " + " | ".join(f"{one:.1f}" for one in figures) + " |", flush=True
            )


def _images(count: int, side: int, cut: int) -> list[Image.Image]:
    draw, folder = random.Random(0), files("sklearn.datasets") / "images"
    photos = [Image.open(io.BytesIO((folder / name).read_bytes())).convert("RGB") for name in SOURCES]
    found = []
    for index in range(count):
        photo = photos[index % len(photos)]
        left, top = draw.randrange(photo.width - cut), draw.randrange(photo.height - cut)
        image = photo.crop((left, top, left + cut, top + cut)).resize((side, side), Image.Resampling.LANCZOS)
        image.info.clear()  # the photographs' own profile
        found.append(image)
    return found


def _saved(image: Image.Image, form: str, more: dict[str, int]) -> bytes:
    made = io.BytesIO()
    image.save(made, form, **more)
    return made.getvalue()


def _decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def _as_png(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return _saved(image, "PNG", {"compress_level": LEVEL})


def _seconds(sent: Sequence[bytes], work: Callable[[bytes], object]) -> float:
    began = time.process_time()
    for data in sent:
        work(data)
    return time.process_time() - began


if __name__ == "__main__":
    main()
