"""What a job leaves: curves, contact sheets, score card, log, files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sqlalchemy.orm import Session
from starlette.responses import (
    FileResponse,
    JSONResponse,
    MalformedRangeHeader,
    PlainTextResponse,
    RangeNotSatisfiable,
)

from app import exports, jobs, links, views
from app.deps import SecretDep, ServicesDep, UserDep, WriterDep
from app.errors import NoSuchRange, NotFound
from app.models import MAX_SEQ, Job, Preview, Step
from app.services import Services
from app.storage.reading import sound_file

router = APIRouter(tags=["results"])
FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    206: {"description": "The range that was asked for."},
    304: {"description": "You have it already."},
}
PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


class Download(FileResponse):
    """A file, of which ranges may be asked for. One that cannot be read is passed over, as RFC 9110 has it."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable as error:
            headers = {"Content-Range": f"bytes */{file_size}"}
            hint = "Ask for a range within it, or for all of it."
            raise NoSuchRange(f"The file has {file_size:,} bytes.", hint=hint, headers=headers) from error


@router.get("/jobs/{job_id}/metrics", summary="Curves of a job, thinned so that no spike is lost")
def get_metrics(
    job_id: str,
    services: ServicesDep,
    user: UserDep,
    names: Annotated[
        str, Query(max_length=400, description="Only these, with commas between; `recover` is all of its.")
    ] = "",
    max_points: Annotated[int, Query(ge=10, le=10_000, description="Of each curve.")] = 1000,
    clocks: Annotated[bool, Query(description="Also tell when points came.")] = False,
) -> views.MetricsOut:
    with services.database.read() as session:
        job = jobs.get(session, user, job_id)
        wanted = list(filter(None, names.split(",")))
        return views.metrics(session, job, names=wanted, max_points=max_points, clocks=clocks)


@router.get("/jobs/{job_id}/previews", summary="Contact sheets of the images as they came to be")
def list_previews(job_id: str, services: ServicesDep, user: UserDep) -> views.PreviewsOut:
    with services.database.read() as session:
        return views.previews(session, jobs.get(session, user, job_id))


@router.get(
    "/previews/{sha256}", response_class=Response, responses=PNG, summary="One contact sheet, a PNG that never changes"
)
def get_preview(
    sha256: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], services: ServicesDep, user: UserDep
) -> FileResponse:
    shown = jobs.visible_to(user).join(Step, Step.job_id == Job.id).join(Preview, Preview.step_key == Step.key)
    with services.database.read() as session:
        is_theirs = session.scalar(
            shown.where(Preview.sha256 == sha256, Step.attempts > 0).with_only_columns(Job.id).limit(1)
        )
    if is_theirs is None or not (path := services.store.blob(sha256)).is_file():
        raise NotFound(f"There is no preview {sha256}.")
    return Download(path, media_type="image/png", headers=FOR_EVER | {"ETag": f'"sha256-{sha256}"'})


@router.get("/jobs/{job_id}/results", summary="The score card, with what it shows and what it does not")
def get_results(job_id: str, services: ServicesDep, user: UserDep) -> views.ResultsOut:
    with services.database.read() as session:
        return views.results(session, jobs.get(session, user, job_id))


@router.get("/jobs/{job_id}/artifacts", summary="The files to download, once the job is done")
def list_artifacts(job_id: str, services: ServicesDep, user: UserDep) -> views.ArtifactsOut:
    with services.database.read() as session:
        return views.artifacts(session, services.store, jobs.get(session, user, job_id), user)


@router.get("/jobs/{job_id}/artifacts/{name:path}", response_class=Response, responses=FILE, summary="Download a file")
def get_artifact(
    job_id: str,
    name: str,
    services: ServicesDep,
    user: UserDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    with services.database.read() as session:
        file = _file(session, services, jobs.get(session, user, job_id), name)
    return _handed(services, file, if_none_match)


@router.post(
    "/jobs/{job_id}/exports",
    status_code=202,
    responses={200: {"description": "It is written.", "model": views.ExportOut}},
    summary="Have a download written in another form, by a job of its own that computes nothing anew",
)
def create_export(
    job_id: str, wanted: exports.ExportIn, response: Response, services: ServicesDep, user: WriterDep
) -> views.ExportOut:
    found = exports.ask(services, user, job_id, wanted)
    if found.artifact is not None:
        response.status_code = 200
    response.headers["Location"] = found.artifact.url if found.artifact else views.urls(found.job or "")["self"]
    return found


@router.post(
    "/jobs/{job_id}/links", status_code=201, summary="A link that hands a file to whoever has it, for some hours"
)
def make_link(
    job_id: str, wanted: links.LinkIn, request: Request, services: ServicesDep, user: WriterDep, secret: SecretDep
) -> links.LinkOut:
    with services.database.write() as session:
        job = jobs.get(session, user, job_id)
        file = _file(session, services, job, wanted.name)
        link, path = links.make(session, services.settings, secret, user, job, wanted)
    base = services.settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")
    expires = datetime.fromtimestamp(link.expires, UTC)
    return links.LinkOut(
        url=f"{base}{path}", name=file.name, sha256=file.sha256, size_bytes=file.size_bytes, expires_at=expires
    )


@router.get(
    "/links/{job_id}/{name:path}",
    response_class=Response,
    responses=FILE,
    summary="Download a file by a link, without a login",
)
def follow_link(
    job_id: str,
    name: str,
    services: ServicesDep,
    secret: SecretDep,
    signed: Annotated[links.Signed, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    link = links.Link(job_id=job_id, name=name, user_id=signed.by, expires=signed.expires)
    with services.database.read() as session:
        file = _file(session, services, links.opened(session, secret, link, signed.signature), name)
    return _handed(services, file, if_none_match)


def _file(session: Session, services: Services, job: Job, name: str) -> views.ArtifactOut:
    """The name is looked up, never joined to a path before it was found: there is no way out of the folder."""
    found = views.artifacts(session, services.store, job)
    file = next((file for file in found.data if file.name == name), None)
    if file is None:
        raise NotFound(
            f"{job.id} has no file {name}.", hint="A job has files when it is done; its list of artifacts names them."
        )
    return file


def _handed(services: Services, file: views.ArtifactOut, if_none_match: str | None) -> Response:
    headers = {
        "ETag": f'"sha256-{file.sha256}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(file.sha256)).decode()}:",
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox",
    }
    if if_none_match is not None and headers["ETag"] in if_none_match:
        return Response(status_code=304, headers=headers)
    path = sound_file(services, file.step, file.name)
    return Download(path, filename=file.name.rpartition("/")[2], headers=headers)


@router.get("/jobs/{job_id}/log", response_model=views.LogPage, summary="The log, as lines or as a text file")
def get_log(
    job_id: str,
    services: ServicesDep,
    user: UserDep,
    after_seq: Annotated[int, Query(ge=0, le=MAX_SEQ)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    format: Literal["json", "text"] = "json",  # noqa: A002
) -> Response:
    with services.database.read() as session:
        job = jobs.get(session, user, job_id)
        if format == "json":
            page = views.log(session, job, after_seq=after_seq, limit=limit)
            return JSONResponse(page.model_dump(mode="json"))
        text = "".join(_lines(session, job, after_seq))
    return PlainTextResponse(text, headers={"Content-Disposition": f'attachment; filename="{job_id}.log"'})


def _lines(session: Session, job: Job, after_seq: int) -> Iterator[str]:
    has_more = True
    while has_more:
        page = views.log(session, job, after_seq=after_seq)
        has_more, after_seq = page.has_more, page.last_seq
        for line in page.data:
            step = f"{line.step}: " if line.step else ""
            yield f"{line.at:%Y-%m-%d %H:%M:%S}  {line.level:7}  {step}{line.message}\n"
