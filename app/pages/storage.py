"""What the store holds, what can go, and the trash; and the buttons that delete, keep and restore."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import controls, jobs
from app.deps import AdminDep, ServicesDep, UserDep, WriterDep
from app.pages.render import page
from app.storage import janitor, trash
from app.storage.usage import usage


def router() -> APIRouter:
    """/storage, and what it does to jobs and sweeps."""
    routes = APIRouter()

    @routes.get("/storage")
    def storage_page(request: Request, services: ServicesDep, user: UserDep) -> HTMLResponse:
        found, deleted = usage(services, user), trash.listed(services, user)
        return page(request, "storage.html", usage=found, trash=deleted, administers=user.role == "admin")

    @routes.post("/storage/clean")
    def clean(services: ServicesDep, admin: AdminDep) -> Response:
        janitor.clean_for(services, admin)
        return RedirectResponse("/storage", 303)

    @routes.post("/storage/jobs/{job_id}/remove")
    def remove_job(services: ServicesDep, admin: AdminDep, job_id: str) -> Response:
        trash.delete_job(services, admin, job_id, purge=True)
        return RedirectResponse("/storage", 303)

    @routes.post("/storage/sweeps/{sweep_id}/remove")
    def remove_sweep(services: ServicesDep, admin: AdminDep, sweep_id: str) -> Response:
        trash.delete_sweep(services, admin, sweep_id, purge=True)
        return RedirectResponse("/storage", 303)

    @routes.post("/jobs/{job_id}/delete")
    def delete_job(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        trash.delete_job(services, user, job_id)
        return RedirectResponse("/jobs", 303)

    @routes.post("/jobs/{job_id}/restore")
    def restore_job(services: ServicesDep, user: WriterDep, job_id: str) -> Response:
        trash.restore_job(services, user, job_id)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/jobs/{job_id}/keep")
    def keep(services: ServicesDep, user: WriterDep, job_id: str, pinned: bool = True) -> Response:
        with services.database.write() as session:
            controls.change(session, jobs.get(session, user, job_id), user, pinned=pinned)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @routes.post("/sweeps/{sweep_id}/restore")
    def restore_sweep(services: ServicesDep, user: WriterDep, sweep_id: str) -> Response:
        trash.restore_sweep(services, user, sweep_id)
        return RedirectResponse(f"/sweeps/{sweep_id}", 303)

    return routes
