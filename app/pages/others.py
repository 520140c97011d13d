"""Workers, and the API's documentation."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from app import views
from app.deps import ServicesDep
from app.pages.render import page


def router() -> APIRouter:
    """/workers and /docs."""
    routes = APIRouter()

    @routes.get("/workers")
    def worker_list(request: Request, services: ServicesDep) -> HTMLResponse:
        with services.database.read() as session:
            found = views.workers(session)
        return page(request, "workers.html", workers=found)

    @routes.get("/docs")
    def api_docs(request: Request) -> HTMLResponse:
        return page(request, "docs.html", openapi=request.app.openapi_url)

    return routes
