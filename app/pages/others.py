"""Workers, and the API's documentation."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import views, workers
from app.deps import AdminDep, ServicesDep, UserDep
from app.models import User, Worker
from app.pages.render import page
from app.services import Services


def router() -> APIRouter:
    """/workers and /docs."""
    routes = APIRouter()

    @routes.get("/workers")
    def worker_list(request: Request, services: ServicesDep, user: UserDep) -> HTMLResponse:
        with services.database.read() as session:
            found = views.workers(session, user)
        return page(request, "workers.html", workers=found, administers=user.role == "admin")

    @routes.post("/workers/{worker_id}/drain")
    def drain(services: ServicesDep, admin: AdminDep, worker_id: str) -> Response:
        return _changed(services, workers.drain, worker_id, admin)

    @routes.post("/workers/{worker_id}/resume")
    def resume(services: ServicesDep, admin: AdminDep, worker_id: str) -> Response:
        return _changed(services, workers.resume, worker_id, admin)

    @routes.get("/docs")
    def api_docs(request: Request) -> HTMLResponse:
        return page(request, "docs.html", openapi=request.app.openapi_url)

    return routes


def _changed(services: Services, change: Callable[[Session, str, User], Worker], worker_id: str, by: User) -> Response:
    with services.database.write() as session:
        change(session, worker_id, by)
    services.bell.ring()  # after the commit
    return RedirectResponse("/workers", 303)
