"""The pages: HTML of the same read models and rules as the API's JSON. Readable without scripts; scripts add liveness."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse

from app.deps import current_user
from app.pages import assets, compare, datasets, job, jobs, new, others, queue, storage, sweeps, teachers
from app.pages import settings as settings_pages
from app.pages.render import page
from app.problems import Problem


def router() -> APIRouter:
    """All pages, and the files that they load."""
    pages = APIRouter(include_in_schema=False, dependencies=[Depends(current_user)])
    for part in (jobs, new, job, compare, queue, sweeps, datasets, teachers, storage, others):
        pages.include_router(part.router())
    pages.include_router(settings_pages.router())
    whole = APIRouter(include_in_schema=False)
    whole.include_router(assets.router())
    whole.include_router(pages)
    return whole


def error_page(request: Request, problem: Problem) -> HTMLResponse:
    """An error for people, in the shell of every page."""
    return page(
        request,
        "error.html",
        status=problem.status,
        title=problem.title,
        code=problem.code,
        detail=problem.detail,
        hint=problem.hint,
        request_id=problem.request_id,
    )
