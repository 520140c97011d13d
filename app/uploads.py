"""Uploaded archives as data sets: taken in, unpacked, listed, removed. Below the store:

uploads/tmp-<id>/archive.zip   what is coming in; removed after a day when nobody finished it
uploads/tmp-<id>/set/          what it is unpacked to
uploads/<sha256>/              the same, renamed when it was whole
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import audit, confined
from app.datasets import DatasetOut, within_archive
from app.errors import Conflict, NotFound, TooLarge, TooMany, Unprocessable
from app.ids import new_id
from app.jobs import lock_user
from app.models import TERMINAL_JOB_STATES, Arrival, Job, UploadHolder, User, Visibility, utc_now
from app.models import Upload as Row
from app.services import Services
from app.unpacking import FULL, BadImage, Unpacked
from app.visibility import chosen, may_change, visible_to
from engine.datasets import UPLOAD_TITLE, describe
from engine.errors import EngineError
from engine.folders import TEST_FOLDERS
from engine.sources import UNPACKED, Folder, Upload
from engine.store import sync, write_atomically

TEMPORARY = "tmp-"
ABANDONED_S = 24 * 3600.0


class Counts(BaseModel):
    """What an upload holds; without a test set of its own, as it is split when a spec does not say otherwise."""

    classes: list[str]
    train_per_class: list[int]
    test_per_class: list[int]
    has_test: bool = Field(description="Whether it has a test set of its own.")
    unpacked_bytes: int = Field(0, description="Of the images; 0 for what was sent to an older server.")
    skipped: int = Field(0, description="Images that cannot be read, which were left out as `skip_bad` allows.")
    skipped_files: list[BadImage] = Field([], description="The first of these, and why.")


class UploadOut(Counts):
    """An uploaded data set."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="SHA-256 of the archive.")
    title: str
    owner: str
    size_bytes: int = Field(description="Of the archive.")
    visibility: str = Field("all", description="Who sees and uses it besides its owner: private, team or all.")
    created_at: datetime
    dataset: Upload = Field(description="What to write under `dataset` in a spec.")


async def receive(services: Services, body: AsyncIterator[bytes]) -> tuple[Path, str]:
    """A body as a file in a new folder below the uploads, and its SHA-256. Raises TooLarge, and leaves nothing then."""
    limit, size, digest = services.settings.max_upload_bytes, 0, hashlib.sha256()
    folder = await run_in_threadpool(new_folder, services.store.uploads)
    try:
        with room(), (folder / "archive.zip").open("wb") as file:
            async for chunk in body:
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                digest.update(chunk)
                await run_in_threadpool(file.write, chunk)
    except BaseException:  # also when the sender went away
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, digest.hexdigest()


def too_large(limit: int) -> TooLarge:
    """For a body past the limit."""
    return TooLarge(
        f"The archive is larger than {limit:,} bytes.",
        hint="Make the images smaller, or have an administrator raise FADRM_MAX_UPLOAD_BYTES.",
    )


def check_room(services: Services, owner: User, size_bytes: int) -> None:
    """Raises TooLarge, TooMany or Unavailable when an archive of so many bytes is not to be sent at all."""
    settings = services.settings
    if size_bytes > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)
    with services.database.read() as session:
        check_quota(session, owner, size_bytes, settings.max_upload_bytes_per_user)
    services.store.uploads.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(services.store.uploads).free < size_bytes:
        raise confined.full()


def check_quota(session: Session, owner: User, size_bytes: int, most: int, *, besides: str | None = None) -> None:
    """Raises TooMany when so many bytes more would be too many. What is under way counts as announced.

    besides: the arrival that these bytes came by. To hold against two at once, ask while the user's row is locked.
    """
    held = session.scalar(select(func.sum(Row.held_bytes)).where(Row.owner_id == owner.id)) or 0
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


def keep(
    services: Services,
    owner: User,
    folder: Path,
    sha256: str,
    title: str,
    *,
    skip_bad: bool = False,
    arrival: str | None = None,
) -> tuple[UploadOut, bool]:
    """Unpack what was received and make it a data set; whether it is new. Removes `folder`.

    arrival: what it came by, where it came in pieces. Raises Unprocessable, and TooMany past the user's quota.
    """
    try:
        with services.database.write() as session:
            if known := session.get(Row, sha256):
                _hold(session, owner, known)
                return _out(session, known), False
        with room():
            unpacked, limits = folder / "set", confined.limits_of(services.settings)
            found = confined.unpack(folder / "archive.zip", unpacked / UNPACKED, limits, skip_bad=skip_bad)
            counts = _counted(unpacked, found)
            write_atomically(unpacked / UPLOAD_TITLE, title.encode())
        size_bytes = (folder / "archive.zip").stat().st_size
        row = Row(id=sha256, owner_id=owner.id, title=title, size_bytes=size_bytes, facts=counts.model_dump())
        row.held_bytes = counts.unpacked_bytes
        try:
            with services.database.write() as session:
                lock_user(session, owner)
                most = services.settings.max_upload_bytes_per_user
                check_quota(session, owner, row.held_bytes, most, besides=arrival)
                row.visibility = chosen(session, owner, None, services.settings.visibility)
                session.add(row)
                session.flush()  # of two that come with the same bytes, one goes on
                _publish(unpacked, services.store.uploads / sha256)
        except IntegrityError:
            with services.database.write() as session:
                known = session.get_one(Row, sha256)
                _hold(session, owner, known)
                return _out(session, known), False
        return get(services, owner, sha256), True
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hold(session: Session, user: User, row: Row) -> None:
    """Who sent the same bytes sees the upload, whoever else may."""
    if row.owner_id != user.id:
        session.merge(UploadHolder(upload_id=row.id, user_id=user.id))


def get(services: Services, user: User, upload_id: str) -> UploadOut:
    """One that the user may see. Raises NotFound."""
    with services.database.read() as session:
        return _out(session, _known(session, user, upload_id))


def show_to(services: Services, user: User, upload_id: str, wanted: str) -> UploadOut:
    """Let an upload be seen and used by nobody else, the owner's teams, or everybody. Raises NotFound, Forbidden."""
    with services.database.write() as session:
        row = _known(session, user, upload_id)
        may_change(user, row)
        if wanted != row.visibility:
            audit.note(session, user, "upload.visibility", row.id, was=row.visibility, now=wanted)
            row.visibility = Visibility(wanted)
        return _out(session, row)


def listed(services: Services, user: User) -> list[DatasetOut]:
    """All that the user may see as data sets to choose, the newest first."""
    query = select(Row, User.name).join(User, User.id == Row.owner_id).where(visible_to(user, Row))
    with services.database.read() as session:
        found = session.execute(query.order_by(Row.created_at.desc())).all()
    return [
        DatasetOut(
            title=row.title,
            dataset=Upload(id=row.id),
            classes=len(row.facts["classes"]),
            has_test=row.facts["has_test"],
            note=f"Uploaded by {name}.",
            visibility=row.visibility,
        )
        for row, name in found
    ]


def remove(services: Services, user: User, upload_id: str) -> None:
    """Forget an upload and its files. Raises NotFound, Forbidden, or Conflict while an unfinished job uses it."""
    with services.database.write() as session:
        row = _known(session, user, upload_id)
        may_change(user, row)
        used = Job.spec["dataset"]["id"].as_string() == upload_id
        job_id = session.scalar(select(Job.id).where(used, Job.state.not_in(TERMINAL_JOB_STATES)).limit(1))
        if job_id is not None:
            raise Conflict(f"{job_id} uses this upload, and has not ended.", hint="Cancel it, or wait for its end.")
        session.delete(row)
    shutil.rmtree(services.store.uploads / upload_id, ignore_errors=True)  # after the commit


def new_folder(uploads: Path) -> Path:
    """An empty one; those that somebody left a day ago are removed on the way."""
    for left in uploads.glob(f"{TEMPORARY}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    folder = uploads / f"{TEMPORARY}{new_id('upload')}"
    folder.mkdir(parents=True)
    return folder


def _counted(unpacked: Path, found: Unpacked) -> Counts:
    """What was unpacked, as the engine reads it. Raises Unprocessable when it is no data set."""
    folder = unpacked / UNPACKED
    try:
        facts = describe(Folder(path=str(folder)))
    except EngineError as error:
        report = within_archive(error.report, folder)
        raise Unprocessable(report.message, hint=report.hint) from error
    return Counts(
        classes=list(facts.classes),
        train_per_class=list(facts.train_per_class),
        test_per_class=list(facts.test_per_class),
        has_test=(folder / "train").is_dir() and any((folder / name).is_dir() for name in TEST_FOLDERS),
        unpacked_bytes=found.size_bytes,
        skipped=found.skipped,
        skipped_files=list(found.files),
    )


def _publish(unpacked: Path, target: Path) -> None:
    """Its row is written and not committed yet: what lies at its place is of an upload that was never finished."""
    shutil.rmtree(target, ignore_errors=True)
    unpacked.rename(target)
    sync(target.parent)


@contextmanager
def room() -> Iterator[None]:
    """Raises Unavailable where the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise confined.full() from error


def _known(session: Session, user: User, upload_id: str) -> Row:
    row = session.scalar(select(Row).where(Row.id == upload_id, visible_to(user, Row)))
    if row is None:
        raise NotFound(f"There is no upload {upload_id[:80]}.", hint="GET /api/v1/datasets lists those that are here.")
    return row


def _out(session: Session, row: Row) -> UploadOut:
    return UploadOut(
        id=row.id,
        title=row.title,
        owner=session.get_one(User, row.owner_id).name,
        size_bytes=row.size_bytes,
        visibility=row.visibility,
        created_at=row.created_at,
        dataset=Upload(id=row.id),
        **row.facts,
    )
