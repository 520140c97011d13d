"""Teachers: those that jobs trained, weights that people sent, and the form that sends some."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import arrivals, sent, weights
from app.deps import ServicesDep, TurnDep, UserDep, VisibilityField, WriterDep
from app.errors import Conflict, ServiceError, TooLarge, TooMany, Unprocessable
from app.models import User
from app.pages import files
from app.pages.render import page
from app.services import Services
from app.views.teachers import teachers
from app.weights import KIND, WeightsOut
from engine.networks import NETWORKS


def router() -> APIRouter:
    """/teachers and below."""
    routes = APIRouter(prefix="/teachers")

    @routes.get("")
    def teacher_list(request: Request, services: ServicesDep, user: UserDep) -> HTMLResponse:
        return _list(request, services, user)

    @routes.post("")
    def send_weights(
        request: Request,
        services: ServicesDep,
        user: WriterDep,
        _turn: TurnDep,
        file: Annotated[UploadFile, File()],
        network: Annotated[str, Form(max_length=40)],
        title: Annotated[str, Form(max_length=80)] = "",
    ) -> Response:
        try:
            name, of = files.title_of(title, file), weights.check_network(network)

            def keep(folder: Path, sha256: str) -> tuple[WeightsOut, bool]:
                return weights.keep(services, user, folder, sha256, name, of)

            files.kept(services, user, file, KIND, keep)
        except (Unprocessable, TooMany, TooLarge) as error:
            return _list(request, services, user, error)
        return RedirectResponse("/teachers", 303)

    @routes.post("/{weights_id}/visibility")
    def show_weights_to(
        services: ServicesDep, user: WriterDep, weights_id: str, visibility: VisibilityField
    ) -> Response:
        sent.show_to(services, user, weights_id, visibility, KIND)
        return RedirectResponse("/teachers", 303)

    @routes.post("/{weights_id}/remove")
    def remove_weights(request: Request, services: ServicesDep, user: WriterDep, weights_id: str) -> Response:
        try:
            sent.remove(services, user, weights_id, KIND)
        except Conflict as error:
            return _list(request, services, user, error)
        return RedirectResponse("/teachers", 303)

    return routes


def _list(request: Request, services: Services, user: User, error: ServiceError | None = None) -> HTMLResponse:
    with services.database.read() as session:
        found = teachers(session, services.store, user)
    return page(
        request,
        "teachers.html",
        status=error.status if error else 200,
        teachers=found,
        sent=weights.listed(services, user),
        arrivals=[one for one in arrivals.listed(services, user) if one.kind == KIND],
        networks=NETWORKS.values(),
        refusal=error,
        limits=services.settings,
    )
