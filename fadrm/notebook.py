"""How jobs, score cards and distilled sets look in a notebook: HTML without script, readable in light and dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from fadrm.errors import ClientError
from fadrm.models import Results, Row, Table

if TYPE_CHECKING:
    from fadrm.comparison import Comparison
    from fadrm.jobs import Job
    from fadrm.sets import Distilled

SHOWN = 100  # images of a grid
COLUMNS = 10
TILE = 64  # px at least, so that small images can be seen


def job(shown: Job) -> str:
    """State, newest images, score card."""
    parts = [f"<p><b>{escape(shown.name)}</b> · {escape(shown.state)}<br>{escape(shown.sentence)}</p>"]
    try:
        sheet = shown.sheet()
        card = shown.results()
    except ClientError:  # a picture of a job must not fail a cell
        return parts[0]
    if sheet is not None:
        parts.append(_picture(sheet, "The newest images of the job"))
    if card.rows:
        parts.append(score_card(card))
    parts.append(f'<p><a href="{escape(shown.web)}">{escape(shown.web)}</a></p>')
    return "".join(parts)


def score_card(results: Results) -> str:
    """The accuracies on real test images, with their spread over the runs, and what they show."""
    head = ("Images", "Student", "Labels", "Runs", "Last epoch, %", "Best on test, %")
    rows = [
        (row.title, row.student, row.labels, f"{row.n}/{row.planned}", spread(row), number(row.best_mean))
        for row in results.rows
    ]
    told = "".join(f"<p>{escape(sentence)}</p>" for sentence in results.verdicts)
    return _table("Top-1 accuracy on the real test set", head, rows) + told


def table(title: str, made: Table) -> str:
    """A sweep: a row a job."""
    rows = [[number(cell) if isinstance(cell, float) else str(cell or "–") for cell in row[1:]] for row in made.rows]
    return _table(title, made.columns[1:], rows)


def comparison(made: Comparison) -> str:
    """What differs, then what came of it."""
    names = [one.name for one in made.jobs]
    fields = [(one.pointer, *(str(value) for value in one.values)) for one in made.differences]
    scores = [
        (f"{one.title}, {one.student}, {one.labels}", *(spread(row) if row else "–" for row in one.rows))
        for one in made.scores
    ]
    return _table("What differs", ["Field", *names], fields) + _table("Top-1, %", ["Images", *names], scores)


def distilled(shown: Distilled) -> str:
    """The first images in a grid, a class a row where ten are enough."""
    from PIL import Image

    count = min(len(shown), SHOWN)
    first = shown.image(0)
    side = max(first.width, TILE)
    sheet = Image.new("RGB", (COLUMNS * side, -(-count // COLUMNS) * side), "white")
    for place in range(count):
        tile = shown.image(place).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(tile, (place % COLUMNS * side, place // COLUMNS * side))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    told = f"{len(shown)} images of {len(shown.classes)} classes, {first.width} px"
    more = f", the first {count} of them" if count < len(shown) else ""
    title = f"<p><b>{escape(str(shown.manifest.get('title', shown.path.name)))}</b>: {told}{more}</p>"
    return title + _picture(buffer.getvalue(), told)


def spread(row: Row) -> str:
    """`93.9 ± 0.4`; a dash where nothing was measured."""
    mean = number(row.mean)
    return mean if row.std is None else f"{mean} ± {row.std:.1f}"


def number(value: float | None) -> str:
    """One decimal; a dash where there is none."""
    return "–" if value is None else f"{value:.1f}"


def _table(title: str, head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _picture(png: bytes, told: str) -> str:
    data = base64.b64encode(png).decode()
    style = "image-rendering:pixelated;max-width:100%"
    return f'<img alt="{escape(told)}" src="data:image/png;base64,{data}" style="{style}">'
