"""The teachers that are in the store."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app.deps import ServicesDep, UserDep
from app.pages.render import page
from app.views.teachers import teachers


def router() -> APIRouter:
    """/teachers."""
    routes = APIRouter()

    @routes.get("/teachers")
    def teacher_list(request: Request, services: ServicesDep, user: UserDep) -> HTMLResponse:
        with services.database.read() as session:
            found = teachers(session, services.store, user)
        return page(request, "teachers.html", teachers=found)

    return routes
