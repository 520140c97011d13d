"""One job: its page, and what its buttons do."""

from __future__ import annotations

import secrets

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import controls, exports, jobs, problems
from app.api.jobs import check_match
from app.deps import ServicesDep, UserDep, VisibilityField, WriterDep
from app.pages import job_view
from app.pages.new import Posted, PostedDep, submit, valid_name
from app.pages.render import page
from app.visibility import of_a_copy


def router() -> APIRouter:
    """/jobs/{job_id} and below."""
    routes = APIRouter(prefix="/jobs/{job_id}")

    @routes.get("")
    def job_page(request: Request, services: ServicesDep, user: UserDep, job_id: str) -> HTMLResponse:
        with services.database.read() as session:
            job = jobs.get(session, user, job_id)
            context = job_view.whole(session, services.store, job, user, _base_url(request, services))
        return page(request, "job.html", **context)

    @routes.get("/parts")
    def job_parts(request: Request, services: ServicesDep, user: UserDep, job_id: str) -> HTMLResponse:
        with services.database.read() as session:
            job = jobs.get(session, user, job_id)
            context = job_view.live_parts(session, services.store, job, user, _base_url(request, services))
        return page(request, "job/parts.html", **context)

    @routes.post("/cancel")
    def cancel(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        with services.database.write() as session:
            controls.cancel(session, jobs.get(session, user, job_id), user)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/visibility")
    def show_to(services: ServicesDep, user: WriterDep, job_id: str, visibility: VisibilityField) -> Response:
        with services.database.write() as session:
            controls.change(session, jobs.get(session, user, job_id), user, visibility=visibility)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/rename")
    def rename(services: ServicesDep, user: WriterDep, job_id: str, posted: PostedDep) -> Response:
        name = valid_name((posted.get("name") or [""])[-1])
        with services.database.write() as session:
            job = jobs.lock(session, jobs.get(session, user, job_id).id)
            check_match((posted.get("seen") or ["*"])[-1], job)
            controls.change(session, job, user, name=name)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/pause")
    def pause(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        with services.database.write() as session:
            controls.pause(session, jobs.get(session, user, job_id), user)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/resume")
    def resume(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        with services.database.write() as session:
            controls.resume(session, jobs.get(session, user, job_id), user)
        services.bell.ring()  # after the commit
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/retry")
    def retry(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        controls.retry_now(services, user, job_id)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/rerun")
    def rerun(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        with services.database.read() as session:
            known = jobs.get(session, user, job_id)
        key, shown_to = secrets.token_hex(16), of_a_copy(user, known)
        made = submit(services, user, jobs.spec_of(known), known.name, key, shown_to)
        return RedirectResponse(f"/jobs/{made}", 303)

    @routes.post("/exports")
    def export(services: ServicesDep, user: WriterDep, job_id: str, posted: PostedDep) -> Response:
        exports.ask(services, user, job_id, _export(posted))
        return RedirectResponse(f"/jobs/{job_id}#download", 303)

    return routes


def _export(posted: Posted) -> exports.ExportIn:
    """What the button asks for: `parquet`, `parquet 10`. Raises Unprocessable."""
    form, _, ipc = (posted.get("form") or [""])[-1].partition(" ")
    asked = {"form": form, "ipc": ipc or None}
    try:
        return exports.ExportIn.model_validate(asked)
    except ValidationError as error:
        raise problems.invalid(error.errors(), asked, prefix="/") from error


def _base_url(request: Request, services: ServicesDep) -> str:
    """The server's address as its users see it, ending in a slash."""
    return services.settings.public_url.rstrip("/") + "/" if services.settings.public_url else str(request.base_url)
