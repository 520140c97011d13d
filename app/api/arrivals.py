"""Uploads that go on after a break: the tus protocol, and `finish`, which makes a data set of what came."""

from __future__ import annotations

from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from app import arrivals, weights
from app.arrivals import MEDIA_TYPE, VERSION, ArrivalOut
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unavailable, UnknownVersion, Unprocessable
from app.models import UploadKind
from app.planning import NAME
from app.uploads import UploadOut
from app.weights import WeightsOut

PIECE: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}, "example": "bytes from Upload-Offset"}
        },
    }
}
Size = Annotated[int, Header(ge=0, le=2**53, description="Bytes of the whole file.")]
Offset = Annotated[int, Header(ge=0, le=2**53, description="Where this piece begins.")]
Metadata = Annotated[
    str,
    Header(
        max_length=1000,
        description="Pairs of a name and its value in base64: title; kind (`images`, `weights`); skip_bad (`true`) of "
        "images; network of weights.",
    ),
]
Checksum = Annotated[str | None, Header(max_length=200, description="Of this piece: `sha256 <base64>`.")]


def speaks_tus(
    response: Response,
    tus_resumable: Annotated[
        str, Header(max_length=20, description="Version of tus that the sender speaks.")
    ] = VERSION,
) -> None:
    """Raises UnknownVersion for another version than ours."""
    response.headers["Tus-Resumable"] = VERSION
    if tus_resumable != VERSION:
        raise UnknownVersion(
            f"This server speaks tus {VERSION}, and not {tus_resumable}.",
            hint=f"Send `Tus-Resumable: {VERSION}`, or leave it out.",
            headers={"Tus-Version": VERSION, "Tus-Resumable": VERSION},
        )


router = APIRouter(tags=["catalogue"], dependencies=[Depends(speaks_tus)])


@router.post(
    "/uploads", status_code=201, summary="Announce a zip of class folders, or weights, that come piece by piece (tus)"
)
def create_arrival(
    response: Response, services: ServicesDep, user: WriterDep, upload_length: Size, upload_metadata: Metadata = ""
) -> ArrivalOut:
    given = arrivals.metadata(upload_metadata)
    try:
        title = NAME.validate_python(given.get("title") or given.get("filename") or "Uploaded files")
    except ValidationError as error:
        raise Unprocessable(
            "The title in Upload-Metadata is no name.", hint="At most 80 printed characters."
        ) from error
    kind = _kind(given)
    made = arrivals.begin(
        services,
        user,
        size_bytes=upload_length,
        title=title,
        kind=kind,
        network=weights.check_network(given.get("network", "")) if kind == UploadKind.WEIGHTS else None,
        skip_bad=given.get("skip_bad", "").lower() in {"true", "1", "on"},
    )
    response.headers["Location"] = f"/api/v1/uploads/{made.id}"
    _tell(response, made)
    return made


@router.get("/uploads", summary="Uploads of yours that are under way, or were refused")
def list_arrivals(response: Response, services: ServicesDep, user: UserDep) -> list[ArrivalOut]:
    response.headers["Tus-Version"], response.headers["Tus-Extension"] = VERSION, arrivals.EXTENSIONS
    response.headers["Tus-Max-Size"] = str(services.settings.max_upload_bytes)
    response.headers["Tus-Checksum-Algorithm"] = ",".join(arrivals.ALGORITHMS)
    return arrivals.listed(services, user)


@router.get("/uploads/{arrival_id}", summary="How far an upload has come, and what became of it")
def get_arrival(response: Response, arrival_id: str, services: ServicesDep, user: UserDep) -> ArrivalOut:
    found = arrivals.get(services, user, arrival_id)
    _tell(response, found)
    return found


@router.patch(
    "/uploads/{arrival_id}",
    status_code=204,
    summary="Send the next piece of an upload (tus)",
    openapi_extra=PIECE,
    response_class=Response,
)
async def append_to_arrival(
    arrival_id: str,
    request: Request,
    services: ServicesDep,
    user: WriterDep,
    upload_offset: Offset,
    upload_checksum: Checksum = None,
) -> Response:
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent != MEDIA_TYPE:
        raise Unprocessable(
            f"The piece was sent as {sent[:80] or 'nothing that is named'}, not as {MEDIA_TYPE}.",
            hint=f"Send the bytes as the body, with the header `Content-Type: {MEDIA_TYPE}`.",
        )
    try:
        found = await arrivals.append(
            services, user, arrival_id, offset=upload_offset, body=request.stream(), checksum=upload_checksum
        )
    except ClientDisconnect as error:
        raise Unprocessable(
            "The piece broke off on its way.", hint="Ask for the offset, and go on from there."
        ) from error
    response = Response(status_code=204, headers={"Tus-Resumable": VERSION})
    _tell(response, found)
    return response


@router.post("/uploads/{arrival_id}/finish", summary="Make a data set, or weights, of an upload that is whole")
def finish_arrival(arrival_id: str, request: Request, services: ServicesDep, user: WriterDep) -> UploadOut | WeightsOut:
    turns = request.app.state.unpacking
    if not turns.acquire(blocking=False):
        raise Unavailable(
            "Other uploads are being read just now.", hint="Ask again shortly.", headers={"Retry-After": "5"}
        )
    try:
        return arrivals.finish(services, user, arrival_id)[0]
    finally:
        turns.release()


@router.delete("/uploads/{arrival_id}", status_code=204, summary="Cancel an upload (tus)")
def cancel_arrival(arrival_id: str, services: ServicesDep, user: WriterDep) -> None:
    arrivals.cancel(services, user, arrival_id)


def _kind(given: dict[str, str]) -> UploadKind:
    """What is to come. Raises Unprocessable."""
    named = given.get("kind", UploadKind.IMAGES)
    try:
        return UploadKind(named)
    except ValueError as error:
        raise Unprocessable(
            f"The kind in Upload-Metadata is {named[:80]!r}.", hint=f"Write one of {', '.join(UploadKind)}."
        ) from error


def _tell(response: Response, arrival: ArrivalOut) -> None:
    """How it stands, in the headers of tus."""
    response.headers["Upload-Offset"] = str(arrival.offset)
    response.headers["Upload-Length"] = str(arrival.size_bytes)
    response.headers["Upload-Expires"] = format_datetime(arrival.expires_at, usegmt=True)
    response.headers["Cache-Control"] = "no-store"
