"""Data sets: what there is, what is in one, and the form that sends an archive. Scripts send it in pieces that go on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import arrivals, folder_preview, jobs, sent, uploads
from app.datasets import catalogue
from app.deps import ServicesDep, TurnDep, UserDep, VisibilityField, WriterDep
from app.errors import ServiceError, TooLarge, TooMany, Unprocessable
from app.models import Job, User
from app.pages import files
from app.pages.render import page
from app.services import Services
from app.uploads import KIND
from engine.sources import Folder, Upload

MOST_JOBS = 10  # that a page names as users of a data set


def router() -> APIRouter:
    """/datasets and below."""
    routes = APIRouter(prefix="/datasets")

    @routes.get("")
    def dataset_list(request: Request, services: ServicesDep, user: UserDep) -> HTMLResponse:
        return _list(request, services, user)

    @routes.post("")
    def send_archive(
        request: Request,
        services: ServicesDep,
        user: WriterDep,
        _turn: TurnDep,
        file: Annotated[UploadFile, File()],
        title: Annotated[str, Form(max_length=80)] = "",
        skip_bad: Annotated[bool, Form()] = False,
    ) -> Response:
        try:
            name = files.title_of(title, file)

            def keep(folder: Path, sha256: str) -> tuple[uploads.UploadOut, bool]:
                return uploads.keep(services, user, folder, sha256, name, skip_bad=skip_bad)

            made = files.kept(services, user, file, KIND, keep)
        except (Unprocessable, TooMany, TooLarge) as error:
            return _list(request, services, user, error)
        return RedirectResponse(f"/datasets/uploads/{made.id}", 303)

    @routes.get("/uploads/{upload_id}")
    def upload_page(request: Request, services: ServicesDep, user: UserDep, upload_id: str) -> HTMLResponse:
        found = uploads.get(services, user, upload_id)
        counts = zip(found.classes, found.train_per_class, found.test_per_class, strict=True)
        used = Job.spec["dataset"]["id"].as_string() == upload_id
        return page(
            request,
            "dataset.html",
            title=found.title,
            upload=found,
            folder="",
            classes=[folder_preview.ClassCount(name=name, train=train, test=test) for name, train, test in counts],
            sheet=f"/api/v1/datasets/{upload_id}/sheet",
            shown=min(len(found.classes), folder_preview.SHOWN),
            jobs=_used_by(services, user, used),
            distil=f"/jobs/new?upload={upload_id}",
            is_ours=user.role == "admin" or user.name == found.owner,
        )

    @routes.post("/uploads/{upload_id}/visibility")
    def show_to(services: ServicesDep, user: WriterDep, upload_id: str, visibility: VisibilityField) -> Response:
        sent.show_to(services, user, upload_id, visibility, KIND)
        return RedirectResponse(f"/datasets/uploads/{upload_id}", 303)

    @routes.get("/folder")
    def folder_page(
        request: Request,
        services: ServicesDep,
        user: UserDep,
        path: Annotated[str, Query(min_length=1, max_length=1024)],
    ) -> HTMLResponse:
        folder, facts = folder_preview.known(path, services.settings.data_roots, services.store.uploads)
        found = folder_preview.preview(folder, facts)
        used = Job.spec["dataset"]["path"].as_string() == folder.path
        return page(
            request,
            "dataset.html",
            title=found.title,
            upload=None,
            folder=folder.path,
            classes=found.classes,
            sheet=found.sheet,
            shown=found.shown,
            jobs=_used_by(services, user, used),
            distil=f"/jobs/new?{urlencode({'folder': folder.path})}",
            is_ours=False,
        )

    return routes


def _list(request: Request, services: Services, user: User, error: ServiceError | None = None) -> HTMLResponse:
    sets = [*uploads.listed(services, user), *catalogue(services.settings.data_roots)]
    return page(
        request,
        "datasets.html",
        status=error.status if error else 200,
        uploads=[one for one in sets if isinstance(one.dataset, Upload)],
        folders=[one for one in sets if isinstance(one.dataset, Folder)],
        built_in=[one for one in sets if not isinstance(one.dataset, Upload | Folder)],
        arrivals=[one for one in arrivals.listed(services, user) if one.kind == KIND],
        refusal=error,
        limits=services.settings,
    )


def _used_by(services: Services, user: User, used: Any) -> list[Job]:
    """Jobs with a data set that this user may see, the newest first."""
    query = jobs.visible_to(user).where(used).order_by(Job.id.desc()).limit(MOST_JOBS)
    with services.database.read() as session:
        return list(session.scalars(query))
