"""The pictures of docs/method.md, from a finished job: `python -m benchmarks.pictures JOB` (of `fadrm submit --preset demo`).

docs/images/recovery.png  the same images at chosen iterations, one row each
docs/images/loss.svg      their loss, with the residual injections marked
docs/images/flow.svg      the steps of a job
"""

from __future__ import annotations

import io
import sys
from math import log
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from fadrm import Client

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SCALE, LEFT, GAP = 3, 108, 6  # of the images; px
WIDTH, HEIGHT, EDGE = 640, 220, 36  # of the curve, px
BLUE, GREY, INK = "#2f6fb5", "#8a8f98", "#5b6270"  # readable on white and on black
FLOW = (
    ("prepare", "images"),
    ("teach", "a teacher"),
    ("select", "patches"),
    ("recover", "FADRM"),
    ("relabel", "soft labels"),
    ("evaluate", "students"),
    ("package", "the zip"),
)


def recovery(client: Client, job_id: str) -> Image.Image:
    """A row for the patches, and for just before and just after each injection, and the end."""
    answer = client._get(f"/jobs/{job_id}/previews")
    previews = next(step["previews"] for step in answer["data"] if step["kind"] == "recover")
    marks = {mark["x"] for mark in _curves(client, job_id)["marks"]}
    shown = [one for one in previews if one["x"] in {0, previews[-1]["x"]} or {one["x"], one["x"] - 1} & marks]
    sheets = [(one["x"], Image.open(io.BytesIO(client._bytes(f"/previews/{one['sha256']}")))) for one in shown]
    size = (sheets[0][1].width * SCALE, sheets[0][1].height * SCALE)
    made = Image.new("RGB", (LEFT + size[0], len(sheets) * (size[1] + GAP)), "white")
    draw = ImageDraw.Draw(made)
    for place, (x, sheet) in enumerate(sheets):
        top = place * (size[1] + GAP)
        told = "patches" if x == 0 else f"{x}, mixed in" if x - 1 in marks else f"iteration {x}"
        draw.text((4, top + size[1] // 2 - 6), told, fill="black")
        made.paste(sheet.convert("RGB").resize(size, Image.Resampling.NEAREST), (LEFT, top))
    return made.quantize(64)


def loss(client: Client, job_id: str) -> str:
    """The curve as SVG, logarithmic in the loss."""
    curves = _curves(client, job_id)
    points = curves["series"]["recover.loss"]
    last, logs = points[-1][0], [log(value) for _, value in points]

    def place(x: float, value: float) -> str:
        share = (log(value) - min(logs)) / (max(logs) - min(logs))
        return f"{EDGE + x / last * (WIDTH - 2 * EDGE):.1f},{HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE):.1f}"

    lines = [
        f'<polyline fill="none" stroke="{BLUE}" stroke-width="1.5" points="{" ".join(place(*one) for one in points)}"/>'
    ]
    for mark in curves["marks"]:
        x, told = place(mark["x"], points[0][1]).partition(",")[0], f"residual, alpha {mark['alpha']:g}"
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="{EDGE}" y2="{HEIGHT - EDGE}" stroke="{GREY}" stroke-dasharray="4 3"/>'
        )
        lines.append(_text(float(x), EDGE - 8, told))
    base = HEIGHT - EDGE
    lines.append(f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{base}" y2="{base}" stroke="{GREY}"/>')
    lines += [_text(EDGE, base + 18, "0"), _text(WIDTH - EDGE, base + 18, f"{last + 1} iterations")]
    return _svg(WIDTH, HEIGHT, "Loss of recovery over the iterations", lines)


def flow() -> str:
    """The steps of a job as SVG."""
    wide, high, gap = 96, 52, 16
    lines = []
    for place, (kind, what) in enumerate(FLOW):
        x, middle = place * (wide + gap) + 2, 2 + high / 2
        lines.append(
            f'<rect x="{x}" y="2" width="{wide}" height="{high}" rx="8" fill="none" stroke="{BLUE}" stroke-width="1.5"/>'
        )
        lines += [_text(x + wide / 2, 24, kind, "bold"), _text(x + wide / 2, 42, what)]
        if place:
            tip = x - 2
            lines.append(
                f'<path d="M{x - gap} {middle}H{tip}m-5 -4l5 4l-5 4" fill="none" stroke="{GREY}" stroke-width="1.5"/>'
            )
    return _svg(len(FLOW) * (wide + gap), high + 4, "The steps of a job", lines)


def _curves(client: Client, job_id: str) -> dict[str, Any]:
    answer = client._get(f"/jobs/{job_id}/metrics", params={"names": "recover", "max_points": 400})
    found: dict[str, Any] = next(step for step in answer["data"] if step["kind"] == "recover")
    return found


def _text(x: float, y: float, told: str, weight: str = "normal") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{INK}" font-weight="{weight}" text-anchor="middle">{told}</text>'


def _svg(width: int, height: int, title: str, lines: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="12"><title>{title}</title>', *lines, "</svg>", ""])


def main(job_id: str) -> None:
    """Draw all of them."""
    with Client() as client:
        recovery(client, job_id).save(FOLDER / "recovery.png", optimize=True)
        (FOLDER / "loss.svg").write_text(loss(client, job_id))
    (FOLDER / "flow.svg").write_text(flow())


if __name__ == "__main__":
    main(sys.argv[1])
