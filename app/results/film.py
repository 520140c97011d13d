"""A job's contact sheets as one moving picture: the images as they came about."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

FRAME_MS, LAST_MS = 250, 2500
LEAST_PX = 320  # of a frame's width: small sheets are enlarged, pixel by pixel
STRIP_PX = 16  # below the images, for the iteration
QUALITY = 85


def film(sheets: Sequence[tuple[int, int, bytes]]) -> bytes:
    """An endless animated WebP. sheets: (iteration, iterations in all, PNG), in order, at least one."""
    frames = [_frame(Image.open(io.BytesIO(png)).convert("RGB"), f"{x} of {total}") for x, total, png in sheets]
    size = frames[0].size
    first, *others = [frame if frame.size == size else frame.resize(size) for frame in frames]
    file = io.BytesIO()
    durations = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(file, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=QUALITY, method=4)
    return file.getvalue()


def _frame(sheet: Image.Image, words: str) -> Image.Image:
    factor = max(1, -(-LEAST_PX // sheet.width))
    large = sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST)
    frame = Image.new("RGB", (large.width, large.height + STRIP_PX), "white")
    frame.paste(large)
    ImageDraw.Draw(frame).text((4, large.height + 2), words, fill="black")
    return frame
