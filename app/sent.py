"""What people send, whatever it is: taken in, counted, put in its place, shown, removed. Below the store:

uploads/tmp-<id>/sent   what is coming in; removed after a day when nobody finished it
uploads/tmp-<id>/made   what it is made to
uploads/<sha256>/       the same, renamed when it was whole
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session
from starlette.concurrency import run_in_threadpool

from app import audit, confined
from app.cage import FULL
from app.errors import Conflict, NotFound, TooLarge, TooMany, Unprocessable
from app.ids import new_id
from app.jobs import lock_user
from app.models import TERMINAL_JOB_STATES, Arrival, Job, Upload, UploadHolder, UploadKind, User, Visibility, utc_now
from app.services import Services
from app.settings import Settings
from app.visibility import chosen, may_change, visible_to
from engine.spec import MOST_TEACHERS
from engine.store import sync

TEMPORARY = "tmp-"
ABANDONED_S = 24 * 3600.0
SENT, MADE = "sent", "made"  # in a temporary folder
LISTED = {UploadKind.IMAGES: "/api/v1/datasets", UploadKind.WEIGHTS: "/api/v1/weights"}


async def receive(services: Services, body: AsyncIterator[bytes], kind: UploadKind) -> tuple[Path, str]:
    """A body as a file in a new folder below the uploads, and its SHA-256. Raises TooLarge, and leaves nothing then."""
    limit, size, digest = most_bytes(services.settings, kind), 0, hashlib.sha256()
    folder = await run_in_threadpool(new_folder, services.store.uploads)
    try:
        with room(), (folder / SENT).open("wb") as file:
            async for chunk in body:
                size += len(chunk)
                if size > limit:
                    raise too_large(limit, kind)
                digest.update(chunk)
                await run_in_threadpool(file.write, chunk)
    except BaseException:  # also when the sender went away
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, digest.hexdigest()


def most_bytes(settings: Settings, kind: UploadKind) -> int:
    """Of one file of a kind."""
    return settings.max_upload_bytes if kind == UploadKind.IMAGES else settings.max_weights_bytes


def too_large(limit: int, kind: UploadKind) -> TooLarge:
    """For a body past the limit."""
    if kind == UploadKind.IMAGES:
        what, remedy, setting = "archive", "Make the images smaller", "FADRM_MAX_UPLOAD_BYTES"
    else:
        what, remedy, setting = (
            "file of weights",
            "Save the weights alone, or in half precision",
            "FADRM_MAX_WEIGHTS_BYTES",
        )
    return TooLarge(
        f"The {what} is larger than {limit:,} bytes.", hint=f"{remedy}, or have an administrator raise {setting}."
    )


def check_room(services: Services, owner: User, size_bytes: int, kind: UploadKind) -> None:
    """Raises TooLarge, TooMany or Unavailable when a file of so many bytes is not to be sent at all."""
    settings = services.settings
    if size_bytes > most_bytes(settings, kind):
        raise too_large(most_bytes(settings, kind), kind)
    with services.database.read() as session:
        check_quota(session, owner, size_bytes, settings.max_upload_bytes_per_user)
    services.store.uploads.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(services.store.uploads).free < size_bytes:
        raise confined.full()


def check_quota(session: Session, owner: User, size_bytes: int, most: int, *, besides: str | None = None) -> None:
    """Raises TooMany when so many bytes more would be too many. What is under way counts as announced.

    besides: the arrival that these bytes came by. To hold against two at once, ask while the user's row is locked.
    """
    held = session.scalar(select(func.sum(Upload.held_bytes)).where(Upload.owner_id == owner.id)) or 0
    coming = sum(row.size_bytes for row in under_way(session, owner) if row.id != besides)
    if held + coming + size_bytes > most:
        under = f" and {coming:,} under way" if coming else ""
        raise TooMany(
            f"Your uploads take {held:,} bytes{under}; with {size_bytes:,} more they exceed the limit of {most:,}.",
            hint="Remove uploads that are no longer needed, or have an administrator raise "
            "FADRM_MAX_UPLOAD_BYTES_PER_USER.",
        )


def under_way(session: Session, owner: User) -> list[Arrival]:
    """Files of a user of which more is to come, or which wait to be finished."""
    rows = session.scalars(select(Arrival).where(Arrival.owner_id == owner.id, Arrival.upload_id.is_(None)))
    return [row for row in rows if row.problem is None and row.expires_at > utc_now()]


def hold(services: Services, owner: User, sha256: str, kind: UploadKind) -> bool:
    """Whether these bytes are here already; who sent them too sees them, whoever else may.

    Raises Unprocessable when they are here as something else.
    """
    with services.database.write() as session:
        row = session.get(Upload, sha256)
        if row is None:
            return False
        if row.kind != kind:
            raise Unprocessable(f"These bytes were sent before, as {row.kind} and not as {kind}.", hint="Make it anew.")
        if row.owner_id != owner.id:
            session.merge(UploadHolder(upload_id=row.id, user_id=owner.id))
        return True


def add(services: Services, owner: User, row: Upload, made: Path, *, arrival: str | None = None) -> bool:
    """Write an upload down and put what was made of it in its place; False when somebody was first with the same bytes.

    arrival: what it came by, where it came in pieces. Raises TooMany past the user's quota, NotFound where it was cancelled.
    """
    services.store.keep_upload(row.id, made)
    try:
        with services.database.write() as session:
            lock_user(session, owner)
            if arrival is not None and session.get(Arrival, arrival, with_for_update=True) is None:
                raise NotFound("This upload was cancelled while it was read.", hint="Send it again.")
            most = services.settings.max_upload_bytes_per_user
            check_quota(session, owner, row.held_bytes, most, besides=arrival)
            row.visibility = chosen(session, owner, None, services.settings.visibility)
            session.add(row)
            session.flush()  # of two that come with the same bytes, one goes on
            _publish(made, services.store.uploads / row.id)
    except IntegrityError:
        return not hold(services, owner, row.id, row.kind)
    return True


def known(session: Session, user: User, upload_id: str, kind: UploadKind) -> Upload:
    """One that the user may see. Raises NotFound."""
    seen = select(Upload).where(Upload.id == upload_id, Upload.kind == kind, visible_to(user, Upload))
    row = session.scalar(seen)
    if row is None:
        raise NotFound(f"There is no upload {upload_id[:80]}.", hint=f"GET {LISTED[kind]} lists those that are here.")
    return row


def show_to(services: Services, user: User, upload_id: str, wanted: str, kind: UploadKind) -> None:
    """Let an upload be seen and used by nobody else, the owner's teams, or everybody. Raises NotFound, Forbidden."""
    with services.database.write() as session:
        row = known(session, user, upload_id, kind)
        may_change(user, row)
        if wanted != row.visibility:
            audit.note(session, user, "upload.visibility", row.id, was=row.visibility, now=wanted)
            row.visibility = Visibility(wanted)


def remove(services: Services, user: User, upload_id: str, kind: UploadKind) -> None:
    """Forget an upload and its files. Raises NotFound, Forbidden, or Conflict while an unfinished job uses it."""
    with services.database.write() as session:
        row = known(session, user, upload_id, kind)
        may_change(user, row)
        session.refresh(row, with_for_update=True)  # a job that is just being accepted is seen below
        unfinished = select(Job.id).where(uses(upload_id), Job.state.not_in(TERMINAL_JOB_STATES)).limit(1)
        job_id = session.scalar(unfinished)
        if job_id is not None:
            raise Conflict(f"{job_id} uses this upload, and has not ended.", hint="Cancel it, or wait for its end.")
        session.delete(row)
    services.store.remove_upload(upload_id)  # after the commit


def uses(upload_id: str | InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether a job is made from an upload: its images, or the weights of one of its teachers."""
    teachers = (Job.spec[("teachers", index, "upload")].as_string() == upload_id for index in range(MOST_TEACHERS))
    return or_(Job.spec["dataset"]["id"].as_string() == upload_id, *teachers)


def uploads_of(made_from: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the uploads that a spec, or the parameters of a step, are made from, as JSON."""
    dataset = made_from.get("dataset") or {}
    if dataset.get("source") == "upload":
        yield dataset["id"]
    for teacher in (made_from.get("teacher") or {}, *made_from.get("teachers", ())):
        if teacher.get("upload"):
            yield teacher["upload"]


def new_folder(uploads: Path) -> Path:
    """An empty one; those that somebody left a day ago are removed on the way."""
    for left in uploads.glob(f"{TEMPORARY}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    folder = uploads / f"{TEMPORARY}{new_id('upload')}"
    folder.mkdir(parents=True)
    return folder


@contextmanager
def room() -> Iterator[None]:
    """Raises Unavailable where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise confined.full() from error


def _publish(made: Path, target: Path) -> None:
    """Its row is written and not committed yet: what lies at its place is of an upload that was never finished."""
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
    sync(target.parent)
