"""What people send, whatever it is: taken in, counted, put in its place, shown, removed. Below the store:

uploads/tmp-<id>/sent   what is coming in; removed after a day when nobody finished it
uploads/tmp-<id>/made   what it is made to
uploads/<sha256>/       the same, renamed when it was whole
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
from app.visibility import chosen, may_change, shown_to, visible_to
from engine.spec import MOST_TEACHERS
from engine.store import sync

TEMPORARY = "tmp-"
ABANDONED_S = 24 * 3600.0
SENT, MADE = "sent", "made"  # in a temporary folder
NAMELESS = {UploadKind.IMAGES: "Uploaded images", UploadKind.WEIGHTS: "Uploaded weights"}
HELD = "Somebody sent these bytes before you and does not show them to you: who else sees them is not yours to say."
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


def hold(services: Services, owner: User, sha256: str, kind: UploadKind, title: str) -> bool:
    """Whether these bytes are here already; who sent them too sees them, whoever else may, by a title of their own.

    Raises Unprocessable when they are here as something else.
    """
    with services.database.read() as session:
        row = session.get(Upload, sha256)
    if row is None:
        return False
    if row.kind != kind:
        raise Unprocessable(f"These bytes were sent before, as {row.kind} and not as {kind}.", hint="Make it anew.")
    if not services.store.upload(sha256).is_dir():  # as a lost disk leaves it: they are put in their place again
        return False
    with services.database.write() as session:
        # It may be removed just now.
        row = session.get(Upload, sha256, with_for_update={"read": True, "key_share": True})
        if row is not None and row.owner_id != owner.id:
            session.merge(UploadHolder(upload_id=row.id, user_id=owner.id, title=title))
        return row is not None


def add(services: Services, owner: User, row: Upload, made: Path, *, arrival: str | None = None) -> bool:
    """Write an upload down and put what was made of it in its place; False when somebody was first with the same bytes.

    arrival: what it came by, where it came in pieces. Raises TooMany past the user's quota, NotFound where it was cancelled.
    """
    services.store.keep_upload(row.id, made)
    place = services.store.uploads / row.id
    try:
        with services.database.write() as session:
            lock_user(session, owner)
            if arrival is not None and session.get(Arrival, arrival, with_for_update=True) is None:
                raise NotFound("This upload was cancelled while it was read.", hint="Send it again.")
            known = session.get(Upload, row.id, with_for_update=True)  # who removes it just now is waited for
            if known is None:
                most = services.settings.max_upload_bytes_per_user
                check_quota(session, owner, row.held_bytes, most, besides=arrival)
                row.visibility = chosen(session, owner, None, services.settings.visibility)
                session.add(row)
                session.flush()  # of two that come with the same bytes, one goes on
            if known is None or (known.kind == row.kind and not place.is_dir()):
                _publish(made, place)
        if known is None:
            return True
    except IntegrityError:
        pass
    return not hold(services, owner, row.id, row.kind, row.title)


def known(session: Session, user: User, upload_id: str, kind: UploadKind) -> Upload:
    """One that the user may see. Raises NotFound."""
    seen = select(Upload).where(Upload.id == upload_id, Upload.kind == kind, visible_to(user, Upload))
    row = session.scalar(seen)
    if row is None:
        raise NotFound(f"There is no upload {upload_id[:80]}.", hint=f"GET {LISTED[kind]} lists those that are here.")
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a user reads of an upload besides its contents."""

    title: str
    owner: str
    visibility: Visibility
    held: bool  # it is not shown to them: they sent the same bytes, and of who did so before they learn nothing


def label_of(session: Session, user: User, row: Upload) -> Label:
    """How an upload that the user may see is called for them."""
    return labels_of(session, user, [row])[row.id]


def labels_of(session: Session, user: User, rows: Sequence[Upload]) -> dict[str, Label]:
    """Id -> how it is called for the user, of each upload that they may see."""
    ids, found = {row.id for row in rows}, dict[str, Label]()
    query = select(Upload.id, User.name).join(User, User.id == Upload.owner_id)
    owners: dict[str, str] = dict(session.execute(query.where(Upload.id.in_(ids), shown_to(user, Upload))).all())
    holds = select(UploadHolder).where(UploadHolder.upload_id.in_(ids - owners.keys()), UploadHolder.user_id == user.id)
    titles = {hold.upload_id: hold.title for hold in session.scalars(holds)} if ids - owners.keys() else {}
    for row in rows:
        if row.id in owners:
            found[row.id] = Label(title=row.title, owner=owners[row.id], visibility=row.visibility, held=False)
        elif row.id in titles:
            title = titles[row.id] or NAMELESS[row.kind]
            found[row.id] = Label(title=title, owner=user.name, visibility=Visibility.PRIVATE, held=True)
    return found


def show_to(services: Services, user: User, upload_id: str, wanted: str, kind: UploadKind) -> None:
    """Let an upload be seen and used by nobody else, the owner's teams, or everybody. Raises NotFound, Forbidden."""
    with services.database.write() as session:
        row = known(session, user, upload_id, kind)
        may_change(user, row)
        if wanted != row.visibility:
            audit.note(session, user, "upload.visibility", row.id, was=row.visibility, now=wanted)
            row.visibility = Visibility(wanted)


def remove(services: Services, user: User, upload_id: str, kind: UploadKind) -> None:
    """Forget an upload and its files; where others sent the same bytes, its owner leaves it to one of them.

    Who only holds its bytes lets go of them. Raises NotFound, Forbidden, or Conflict while an unfinished job uses it.
    """
    with vanishing(services, upload_id) as vanish, services.database.write() as session:
        known(session, user, upload_id, kind)
        held = session.get(Upload, upload_id, populate_existing=True, with_for_update=True)
        row = held or known(session, user, upload_id, kind)  # gone: somebody was quicker
        own = session.get(UploadHolder, (upload_id, user.id))
        if own is not None and row.owner_id != user.id:
            session.delete(own)
            return
        may_change(user, row)
        if row.owner_id != user.id or not _handed_over(session, row):
            # Also by a job that was being accepted until now: the row was locked.
            _refuse_in_use(session, user, upload_id)
            session.delete(row)
            session.flush()
            vanish()


def _handed_over(session: Session, row: Upload) -> bool:
    """Give an upload to one of those who sent the same bytes too, under their title; whether there is one."""
    heirs = select(UploadHolder).join(User, User.id == UploadHolder.user_id).where(UploadHolder.upload_id == row.id)
    heir = session.scalar(heirs.order_by(User.disabled_at.is_not(None), UploadHolder.user_id).limit(1))
    if heir is None:
        return False
    row.owner_id, row.title, row.visibility = heir.user_id, heir.title or NAMELESS[row.kind], Visibility.PRIVATE
    session.delete(heir)
    return True


def _refuse_in_use(session: Session, user: User, upload_id: str) -> None:
    """Raises Conflict, which names a job only to who may see it."""
    unfinished = select(Job.id).where(uses(upload_id), Job.state.not_in(TERMINAL_JOB_STATES)).limit(1)
    if session.scalar(unfinished) is None:
        return
    seen = session.scalar(unfinished.where(visible_to(user, Job)))
    hint = "Cancel it, or wait for its end." if seen else "Wait for its end."
    raise Conflict(f"{seen or 'A job of somebody else'} uses this upload, and has not ended.", hint=hint)


@contextmanager
def vanishing(services: Services, upload_id: str) -> Iterator[Callable[[], None]]:
    """Let the files of an upload vanish, around a transaction: from the call on nobody finds them, so that the same bytes may
    come again at once; after the commit they are removed, and where it fails they come back."""
    place = services.store.uploads / upload_id
    aside = services.store.uploads / f"{TEMPORARY}{new_id('upload')}"
    is_called = False

    def vanish() -> None:
        nonlocal is_called
        is_called = True
        with suppress(FileNotFoundError):
            place.rename(aside)
            os.utime(aside)  # else it looks abandoned

    try:
        yield vanish
    except BaseException:
        if aside.exists():
            aside.rename(place)
        raise
    if is_called:
        services.store.remove_upload(upload_id, aside)


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
