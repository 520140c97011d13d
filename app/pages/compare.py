"""Several jobs side by side: what differs first, then results, curves and images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.api.compare import Ids, named
from app.deps import ServicesDep, UserDep
from app.models import TERMINAL_JOB_STATES
from app.pages.job_view import CurveSummary
from app.pages.render import page
from app.views.compare import CompareOut, compare
from app.views.results import RowOut


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """What one job reached on one line of the score cards."""

    row: RowOut | None
    leads: bool  # the greatest mean of its line
    to_first: float | None  # points more than the first job


def router() -> APIRouter:
    """/compare."""
    routes = APIRouter()

    @routes.get("/compare")
    def compare_page(
        request: Request, services: ServicesDep, user: UserDep, ids: Ids = "", part: bool = False
    ) -> HTMLResponse:
        with services.database.read() as session:
            found = compare(session, named(session, user, ids))
        return page(request, "compare_parts.html" if part else "compare.html", **_context(found))

    return routes


def _context(found: CompareOut) -> dict[str, Any]:
    ids = [job.id for job in found.jobs]
    return {
        "found": found,
        "ids": ids,
        "without": {one: ",".join(other for other in ids if other != one) for one in ids},
        "differences": [(one.pointer, [told(value) for value in one.values]) for one in found.differences],
        "matrix": [(line, _cells(line.rows)) for line in found.scores],
        "summaries": list(_summaries(found)),
        "curves": [curve.model_dump() for curve in found.curves],
        "sheets": [[sheet.model_dump(include={"x", "total", "url"}) for sheet in own] for own in found.sheets],
        "newest": [own[-1] if own else None for own in found.sheets],
        "over": all(job.state in TERMINAL_JOB_STATES for job in found.jobs),
    }


def told(value: Any) -> str:
    """A value of a spec in a table: empty where there is none."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cells(rows: list[RowOut | None]) -> list[MatrixCell]:
    means = [row.mean if row else None for row in rows]
    known = [mean for mean in means if mean is not None]
    most = max(known) if len(known) > 1 else None
    first = means[0]
    return [
        MatrixCell(
            row=row,
            leads=mean is not None and mean == most,
            to_first=mean - first if index and mean is not None and first is not None else None,
        )
        for index, (row, mean) in enumerate(zip(rows, means, strict=True))
    ]


def _summaries(found: CompareOut) -> Iterator[CurveSummary]:
    """Every curve in short: what a reader has without scripts."""
    for curve in found.curves:
        for job, points in zip(found.jobs, curve.series, strict=True):
            yield from CurveSummary.of(f"{curve.title} ({job.name})", points)
