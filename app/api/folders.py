"""Folders of classes, looked into before a job is made of them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from app import folder_preview
from app.deps import ServicesDep, UserDep
from engine.datasets import Facts
from engine.sources import Folder

router = APIRouter(tags=["catalogue"])
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "You have it already."},
}
PathQuery = Annotated[
    str,
    Query(min_length=1, max_length=1024, description="Of a folder of classes, under a root that the server allows."),
]


@router.get("/datasets/preview", summary="What a folder of classes holds: images of each class")
def preview_folder(path: PathQuery, services: ServicesDep, _user: UserDep) -> folder_preview.FolderPreview:
    return folder_preview.preview(*_known(path, services))


@router.get(
    "/datasets/preview/sheet",
    response_class=Response,
    responses=PNG,
    summary="One image of each class of a folder, as a PNG",
)
def preview_folder_sheet(
    path: PathQuery,
    services: ServicesDep,
    _user: UserDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    folder, facts = _known(path, services)
    headers = {"ETag": f'"{facts.digest}"', "Cache-Control": "private, max-age=60"}
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(folder_preview.sheet(folder), media_type="image/png", headers=headers)


def _known(path: str, services: ServicesDep) -> tuple[Folder, Facts]:
    return folder_preview.known(path, services.settings.data_roots, services.store.uploads)
