"""The list of jobs: filters in the address, pages by cursor."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from statistics import fmean
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import views
from app.deps import ServicesDep, UserDep
from app.models import Job, JobState, Step, StepState, User
from app.pages.render import page
from engine.plan import Row
from engine.presets import PRESETS

PAGE = 25
WELCOME = ("demo", "cifar10-small", "cifar100-ipc10-fadrm-paper")  # presets that an empty list offers


class Filters(BaseModel):
    """What the address asks for."""

    q: str = ""
    state: str = ""
    owner: str = ""
    after: views.Cursor = ""

    @property
    def narrows(self) -> bool:
        return bool(self.q or self.state or self.owner or self.after)

    def url(self, after: str = "") -> str:
        """The same list, from another place on."""
        asked = {"q": self.q, "state": self.state, "owner": self.owner, "after": after}
        return "/jobs?" + urlencode({name: value for name, value in asked.items() if value})


def router() -> APIRouter:
    """/ and /jobs."""
    routes = APIRouter()

    @routes.get("/")
    def home() -> Response:
        return RedirectResponse("/jobs", 307)

    @routes.get("/jobs")
    def job_list(
        request: Request, services: ServicesDep, user: UserDep, filters: Annotated[Filters, Query()], part: bool = False
    ) -> HTMLResponse:
        with services.database.read() as session:
            context = _context(session, user, filters)
        return page(request, "jobs_table.html" if part else "jobs.html", **context)

    return routes


def _context(session: Session, user: User, filters: Filters) -> dict[str, Any]:
    found = views.page_of_jobs(
        session,
        user,
        states=[filters.state] if filters.state else [],
        owner=filters.owner or None,
        text=filters.q or None,
        after=filters.after or None,
        limit=PAGE,
    )
    return {
        "page": found,
        "best": best_results(session, [job.id for job in found.data]),
        "filters": filters,
        "filtered": filters.narrows,
        "states": list(JobState),
        "first": filters.url(),
        "next": filters.url(found.next_cursor or ""),
        "presets": [PRESETS[name] for name in WELCOME],
        "idempotency_key": secrets.token_hex(16),
    }


def best_results(session: Session, ids: Sequence[str]) -> dict[str, float]:
    """Job -> the best mean accuracy of a row of distilled images, last epoch, %."""
    jobs = session.execute(select(Job.id, Job.rows).where(Job.id.in_(ids))).all()
    rows = {job_id: [Row.model_validate(row) for row in found] for job_id, found in jobs}
    keys = {key for found in rows.values() for row in found for key in row.runs}
    query = select(Step.key, Step.result).where(Step.key.in_(keys), Step.state == StepState.SUCCEEDED)
    top1 = {key: result["top1_last_pct"] for key, result in session.execute(query) if result}
    means = {
        job_id: [fmean(values) for row in found if row.subject == "distilled" and (values := _known(top1, row.runs))]
        for job_id, found in rows.items()
    }
    return {job_id: max(found) for job_id, found in means.items() if found}


def _known(top1: dict[str, float], runs: Sequence[str]) -> list[float]:
    return [top1[key] for key in runs if key in top1]
