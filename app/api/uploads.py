"""Archives of images: send, read, remove. They are listed among the data sets (GET /datasets)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app import folder_preview, sent, uploads
from app.api.folders import PNG
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unprocessable
from app.planning import Name
from app.uploads import KIND, UploadOut
from app.visibility import Chosen

ZIP = "application/zip"
BODY = {"required": True, "content": {ZIP: {"schema": {"type": "string", "format": "binary"}, "example": "PK..."}}}
SkipBad = Annotated[
    bool, Query(description="Leave out images that cannot be read, at most one in a hundred, instead of refusing all.")
]
router = APIRouter(tags=["catalogue"])


def refuse_other_type(request: Request, wanted: str) -> None:
    """Raises Unprocessable for a body that is not sent as the file itself."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise Unprocessable(
            f"The body was sent as {given[:80] or 'nothing that is named'}, not as {wanted}.",
            hint=f"Send the file itself as the body, with the header `Content-Type: {wanted}`.",
        )


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
    refuse_other_type(request, ZIP)
    size_bytes = int(request.headers.get("content-length", "0"))  # the guard saw that it is a number
    await run_in_threadpool(sent.check_room, services, user, size_bytes, KIND)
    try:
        folder, sha256 = await sent.receive(services, request.stream(), KIND)
    except ClientDisconnect as error:
        raise Unprocessable("The archive broke off on its way.", hint="Send it again.") from error

    def keep() -> tuple[UploadOut, bool]:
        with request.app.state.unpacking:  # it is here already: it waits for its turn
            return uploads.keep(services, user, folder, sha256, title, skip_bad=skip_bad)

    made, is_new = await run_in_threadpool(keep)
    response.headers["Location"] = f"/api/v1/datasets/{made.id}"
    if not is_new:
        response.status_code = 200
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
    return Response(folder_preview.sheet(folder), media_type="image/png", headers=headers)


@router.delete("/datasets/{upload_id}", status_code=204, summary="Remove an uploaded data set of yours")
def delete_upload(upload_id: str, services: ServicesDep, user: WriterDep) -> None:
    sent.remove(services, user, upload_id, KIND)
