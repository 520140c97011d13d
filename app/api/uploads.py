"""Archives of images: send, read, remove. They are listed among the data sets (GET /datasets)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app import folder_preview, sent, uploads
from app.api.folders import PNG
from app.datasets import within_archive
from app.deps import ServicesDep, UserDep, WriterDep, reading_turn
from app.errors import Unprocessable
from app.models import UploadKind, User
from app.planning import Name
from app.services import Services
from app.uploads import KIND, UploadOut
from app.visibility import Chosen
from engine.errors import EngineError

ZIP = "application/zip"
BODY = {"required": True, "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "PK..."}}}
SkipBad = Annotated[
    bool, Query(description="Leave out images that cannot be read, at most one in a hundred, instead of refusing all.")
]
Made = TypeVar("Made")
router = APIRouter(tags=["catalogue"])


async def received(
    request: Request,
    services: Services,
    user: User,
    kind: UploadKind,
    media_type: str,
    keep: Callable[[Path, str], tuple[Made, bool]],
) -> tuple[Made, bool]:
    """What `keep` makes of the folder and the SHA-256 of a body that is a file; whether it is new.

    Raises Unprocessable for a body of another type, or that breaks off, and what `sent.receive` and `keep` raise.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != media_type:
        raise Unprocessable(
            f"The body was sent as {given[:80] or 'nothing that is named'}, not as {media_type}.",
            hint=f"Send the file itself as the body, with the header `Content-Type: {media_type}`.",
        )
    size_bytes = int(request.headers.get("content-length", "0"))  # the guard saw that it is a number
    await run_in_threadpool(sent.check_room, services, user, size_bytes, kind)
    try:
        folder, sha256 = await sent.receive(services, request.stream(), kind)
    except ClientDisconnect as error:
        raise Unprocessable("The file broke off on its way.", hint="Send it again.") from error
    async with asynccontextmanager(reading_turn)(request):  # it is here already: it waits for its turn
        return await run_in_threadpool(keep, folder, sha256)


def tell_of(response: Response, address: str, *, is_new: bool) -> None:
    """Where what was sent is, and that it was there before."""
    response.headers["Location"] = address
    if not is_new:
        response.status_code = 200


@router.post(
    "/datasets",
    status_code=201,
    summary="Send a zip of class folders as the body; 200 when the same bytes were here already",
    openapi_extra={"requestBody": BODY},
)
async def create_upload(
    request: Request,
    response: Response,
    services: ServicesDep,
    user: WriterDep,
    title: Annotated[Name, Query(description="For people.")] = "Uploaded images",
    skip_bad: SkipBad = False,
) -> UploadOut:
    def keep(folder: Path, sha256: str) -> tuple[UploadOut, bool]:
        return uploads.keep(services, user, folder, sha256, title, skip_bad=skip_bad)

    made, is_new = await received(request, services, user, KIND, ZIP, keep)
    tell_of(response, f"/api/v1/datasets/{made.id}", is_new=is_new)
    return made


@router.get("/datasets/{upload_id}", summary="An uploaded data set")
def get_upload(upload_id: str, services: ServicesDep, user: UserDep) -> UploadOut:
    return uploads.get(services, user, upload_id)


class UploadChangeIn(BaseModel):
    """What of an upload may be changed."""

    model_config = ConfigDict(extra="forbid")

    visibility: Chosen = Field(description="Who sees and uses it besides its owner and administrators.")


@router.patch("/datasets/{upload_id}", summary="Who sees an uploaded data set of yours")
def change_upload(wanted: UploadChangeIn, upload_id: str, services: ServicesDep, user: WriterDep) -> UploadOut:
    sent.show_to(services, user, upload_id, wanted.visibility, KIND)
    return uploads.get(services, user, upload_id)


@router.get(
    "/datasets/{upload_id}/sheet",
    response_class=Response,
    responses=PNG,
    summary="One image of each class of an upload, as a PNG",
)
def get_upload_sheet(
    upload_id: str, services: ServicesDep, user: UserDep, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    found = uploads.get(services, user, upload_id)
    headers = {"ETag": f'"{found.id}"', "Cache-Control": "private, max-age=86400"}
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    services.store.upload(found.id)
    folder = found.dataset.unpacked(services.store.uploads)
    try:
        made = folder_preview.sheet(folder)
    except EngineError as error:
        told = within_archive(error.report, Path(folder.path))
        raise Unprocessable(told.message, hint=told.hint) from error
    return Response(made, media_type="image/png", headers=headers)


@router.delete("/datasets/{upload_id}", status_code=204, summary="Remove an uploaded data set of yours")
def delete_upload(upload_id: str, services: ServicesDep, user: WriterDep) -> None:
    sent.remove(services, user, upload_id, KIND)
