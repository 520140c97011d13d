"""Sweeps: their list, the form of a new one, and one with its table and plot."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import sweeps, views
from app.deps import ServicesDep, UserDep, VisibilityField, WriterDep
from app.errors import Unprocessable
from app.models import TERMINAL_JOB_STATES
from app.pages import sweep_form, sweep_view
from app.pages.new import PostedDep
from app.pages.render import page
from app.storage import trash

PAGE = 25
CHECK = "check"


def router() -> APIRouter:
    """/sweeps and below."""
    routes = APIRouter(prefix="/sweeps")

    @routes.get("")
    def sweep_list(
        request: Request, services: ServicesDep, user: UserDep, after: views.SweepCursor = ""
    ) -> HTMLResponse:
        with services.database.read() as session:
            found = views.page_of_sweeps(session, user, after=after or None, limit=PAGE)
        return page(request, "sweeps.html", page=found, after=after)

    @routes.get("/new")
    def blank(
        request: Request,
        services: ServicesDep,
        user: UserDep,
        job: str = "",
        sweep: str = "",
        preset: str = sweep_form.DEMO,
    ) -> HTMLResponse:
        if sweep:
            return _form(request, services, user, sweep_form.again(services, user, sweep))
        return _form(request, services, user, sweep_form.Draft(base=f"job:{job}" if job else f"preset:{preset}"))

    @routes.post("/new")
    def filled_in(request: Request, services: ServicesDep, user: WriterDep, posted: PostedDep) -> Response:
        draft = sweep_form.read(posted)
        if (posted.get("action") or [""])[-1] == CHECK:
            return _form(request, services, user, draft)
        try:
            wanted = sweep_form.request_of(services, user, draft)
            sweep, _ = sweeps.submit(services, user, wanted, draft.key)
        except Unprocessable as error:
            return _form(request, services, user, draft, error)
        return RedirectResponse(f"/sweeps/{sweep.id}", 303)

    @routes.get("/{sweep_id}")
    def sweep_page(
        request: Request,
        services: ServicesDep,
        user: UserDep,
        sweep_id: str,
        asked: Annotated[sweep_view.Asked, Query()],
        part: bool = False,
    ) -> HTMLResponse:
        with services.database.read() as session:
            found = views.sweep_out(session, sweeps.get(session, user, sweep_id))
        context: dict[str, Any] = {"sweep": found, "over": found.state in TERMINAL_JOB_STATES}
        name = "sweep_parts.html" if part else "sweep.html"
        return page(request, name, **context, **sweep_view.context(found, asked))

    @routes.post("/{sweep_id}/visibility")
    def show_to(services: ServicesDep, user: WriterDep, sweep_id: str, visibility: VisibilityField) -> Response:
        with services.database.write() as session:
            sweeps.show_to(session, sweeps.get(session, user, sweep_id), user, visibility)
        return RedirectResponse(f"/sweeps/{sweep_id}", 303)

    @routes.post("/{sweep_id}/cancel")
    def cancel(services: ServicesDep, user: WriterDep, sweep_id: str) -> Response:
        sweeps.cancel(services, user, sweep_id)
        return RedirectResponse(f"/sweeps/{sweep_id}", 303)

    @routes.post("/{sweep_id}/retry")
    def retry(services: ServicesDep, user: WriterDep, sweep_id: str) -> Response:
        sweeps.retry(services, user, sweep_id)
        return RedirectResponse(f"/sweeps/{sweep_id}", 303)

    @routes.post("/{sweep_id}/delete")
    def delete(services: ServicesDep, user: WriterDep, sweep_id: str) -> Response:
        trash.delete_sweep(services, user, sweep_id)
        return RedirectResponse("/sweeps", 303)

    return routes


def _form(
    request: Request,
    services: ServicesDep,
    user: UserDep,
    draft: sweep_form.Draft,
    error: Unprocessable | None = None,
) -> HTMLResponse:
    """The form with what it would make, or with what is wrong with it."""
    plan = None
    if error is None:
        try:
            wanted = sweep_form.request_of(services, user, draft)
            plan = sweeps.plan_out(services, sweeps.prepare(services, user, wanted, request.app.state.facts), user)
        except Unprocessable as found:
            error = found
    return page(
        request,
        "sweep_new.html",
        status=422 if error and request.method == "POST" else 200,
        draft=draft,
        plan=plan,
        refusal=error,
        request_method=request.method,
        **sweep_form.context(services, user, draft, error),
    )
