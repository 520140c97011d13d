"""Files on their way, piece by piece, which go on after a break: the tus protocol 1.0 (creation, checksum, expiration,
termination). Below the store:

uploads/part-<id>/sent   the bytes that are here; how many there are is where the next piece begins

The file is the truth of what is here, and its lock lets one piece in at a time, whatever process it comes to.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import null, select, update
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import sent, uploads, weights
from app.errors import BadChecksum, Conflict, NotFound, TooLarge, TooMany, Unprocessable
from app.ids import new_id
from app.jobs import lock_user
from app.models import Arrival, UploadKind, User, utc_now
from app.sent import SENT
from app.services import Services
from app.uploads import UploadOut
from app.weights import WeightsOut
from engine.store import sha256_of_file

VERSION = "1.0.0"
EXTENSIONS = "creation,checksum,expiration,termination"
MEDIA_TYPE = "application/offset+octet-stream"
ALGORITHMS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}  # tus demands that sha1 is known
FOLDER = "part-"


class ArrivalState(StrEnum):
    """How far a file has come."""

    RECEIVING = "receiving"  # bytes are missing
    RECEIVED = "received"  # all are here, and wait to be finished
    REFUSED = "refused"  # it was read, and is not what it should be: `problem` says why
    READY = "ready"  # it is an upload


class ArrivalOut(BaseModel):
    """A file on its way."""

    model_config = ConfigDict(frozen=True)

    id: str
    title: str
    state: ArrivalState
    size_bytes: int = Field(description="Of the whole file.")
    offset: int = Field(description="Bytes that are here: where the next piece begins.")
    kind: UploadKind = Field(UploadKind.IMAGES, description="images: an archive of them; weights: of a teacher.")
    network: str | None = Field(None, description="Whose weights they are.")
    skip_bad: bool
    upload_id: str | None = Field(description="The upload that it became.")
    problem: dict[str, Any] | None = Field(description="Why it was refused: detail, hint, details.")
    created_at: datetime
    expires_at: datetime = Field(description="It is forgotten then, unless another piece comes.")


def begin(
    services: Services,
    owner: User,
    *,
    size_bytes: int,
    title: str,
    kind: UploadKind = UploadKind.IMAGES,
    network: str | None = None,
    skip_bad: bool = False,
) -> ArrivalOut:
    """A file that will come. Raises TooLarge, TooMany or Unavailable when it need not begin."""
    sent.check_room(services, owner, size_bytes, kind)
    limit = services.settings.max_uploads_at_once
    with services.database.write() as session:
        lock_user(session, owner)
        sent.check_quota(session, owner, size_bytes, services.settings.max_upload_bytes_per_user)
        rows = sent.under_way(session, owner)
        if len(rows) >= limit:
            raise TooMany(
                f"You have {len(rows)} uploads under way, and the limit is {limit}.",
                hint=f"Finish or cancel one of them, such as {rows[0].title!r}.",
                headers={"Retry-After": "60"},
            )
        row = Arrival(
            id=new_id("arr"),
            owner_id=owner.id,
            title=title,
            size_bytes=size_bytes,
            kind=kind,
            network=network,
            skip_bad=skip_bad,
            expires_at=_expiry(services),
        )
        session.add(row)
        session.flush()
        return _out(services, row)


def get(services: Services, user: User, arrival_id: str) -> ArrivalOut:
    """One of one's own. Raises NotFound, also for what has expired."""
    with services.database.read() as session:
        return _out(services, _known(session, user, arrival_id))


def listed(services: Services, user: User) -> list[ArrivalOut]:
    """One's own, the newest first, without those that became uploads."""
    query = select(Arrival).where(Arrival.owner_id == user.id, Arrival.upload_id.is_(None))
    with services.database.read() as session:
        rows = session.scalars(query.order_by(Arrival.id.desc())).all()
        return [_out(services, row) for row in rows if row.expires_at > utc_now()]


async def append(
    services: Services, user: User, arrival_id: str, *, offset: int, body: AsyncIterator[bytes], checksum: str | None
) -> ArrivalOut:
    """Take a piece that begins at `offset`; how it stands now. checksum: `sha256 <base64>` of the piece.

    What came before the sender went away is kept, unless there is a checksum to hold it against. Raises NotFound,
    Conflict for another offset or while another piece comes in, TooLarge, BadChecksum or Unprocessable.
    """
    arrival = await run_in_threadpool(get, services, user, arrival_id)
    if arrival.state not in {ArrivalState.RECEIVING, ArrivalState.RECEIVED}:
        raise Conflict("This upload has ended already.", hint=f"GET /api/v1/uploads/{arrival_id} tells how.")
    digest, wanted = _checker(checksum)
    path = _path(services, arrival_id)
    with _turn(path), sent.room(), path.open("r+b") as file:
        have = file.seek(0, os.SEEK_END)
        if offset != have:
            raise Conflict(
                f"The next piece begins at {have:,}, and this one at {offset:,}.",
                hint="Ask for the offset (HEAD), and send from there.",
                headers={"Upload-Offset": str(have)},
            )
        size, is_whole = have, False
        try:
            async for chunk in body:
                size += len(chunk)
                if size > arrival.size_bytes:
                    raise TooLarge(
                        f"More bytes come than the {arrival.size_bytes:,} that were announced.", hint="Begin anew."
                    )
                digest.update(chunk)
                await run_in_threadpool(file.write, chunk)
            is_whole = True
        finally:
            is_kept = size <= arrival.size_bytes and (digest.digest() == wanted if wanted else True)
            if not is_kept:
                file.truncate(have)
            file.flush()
            os.fsync(file.fileno())
        if is_whole and not is_kept:
            raise BadChecksum("The piece is not what its checksum says.", hint="Send it again from the same offset.")
    return await run_in_threadpool(_renewed, services, user, arrival_id)


def finish(services: Services, user: User, arrival_id: str) -> tuple[UploadOut | WeightsOut, bool]:
    """Make an upload of a file that is whole; whether it is new. Asked again, it answers the same.

    Raises NotFound, Conflict while bytes are missing or another request does it, and what `uploads.keep` raises.
    """
    arrival, path = get(services, user, arrival_id), _path(services, arrival_id)
    if arrival.state == ArrivalState.RECEIVED:
        with _turn(path):
            arrival = get(services, user, arrival_id)  # another request may have finished it just now
            if arrival.state == ArrivalState.RECEIVED:
                return _read(services, user, arrival)
    if arrival.upload_id is not None:
        found = weights.get if arrival.kind == UploadKind.WEIGHTS else uploads.get
        return found(services, user, arrival.upload_id), False
    if arrival.problem is not None:
        raise Unprocessable(**_as_arguments(arrival.problem))
    missing = arrival.size_bytes - arrival.offset
    raise Conflict(f"{missing:,} of {arrival.size_bytes:,} bytes are missing.", hint="Send them first.")


def _read(services: Services, user: User, arrival: ArrivalOut) -> tuple[UploadOut | WeightsOut, bool]:
    """Make an upload of a file that nobody else writes or reads, and note what became of it."""
    folder = sent.new_folder(services.store.uploads)
    os.link(_path(services, arrival.id), folder / SENT)  # stays here when it cannot be read for want of room
    try:
        made, is_new = _kept(services, user, arrival, folder)
    except Unprocessable as error:
        _end(services, arrival.id, problem={"detail": error.detail, "hint": error.hint, "details": error.details})
        raise
    _end(services, arrival.id, upload_id=made.id)
    return made, is_new


def _kept(services: Services, user: User, arrival: ArrivalOut, folder: Path) -> tuple[UploadOut | WeightsOut, bool]:
    """What a file in a folder is, by its kind."""
    given = (services, user, folder, sha256_of_file(folder / SENT), arrival.title)
    if arrival.kind == UploadKind.WEIGHTS:
        return weights.keep(*given, arrival.network or "", arrival=arrival.id)
    return uploads.keep(*given, skip_bad=arrival.skip_bad, arrival=arrival.id)


def cancel(services: Services, user: User, arrival_id: str) -> None:
    """Forget a file. Raises NotFound."""
    with services.database.write() as session:
        session.delete(_known(session, user, arrival_id))
    shutil.rmtree(_path(services, arrival_id).parent, ignore_errors=True)


def clean(services: Services) -> int:
    """Forget what nobody went on with; how many. What no row knows of any more goes after a day, too."""
    with services.database.write() as session:
        gone = session.scalars(select(Arrival).where(Arrival.expires_at <= utc_now())).all()
        for row in gone:
            session.delete(row)
        known = set(session.scalars(select(Arrival.id)))
    for folder in services.store.uploads.glob(f"{FOLDER}*"):
        is_old = time.time() - folder.stat().st_mtime > sent.ABANDONED_S
        if folder.name.removeprefix(FOLDER) not in known and is_old:
            shutil.rmtree(folder, ignore_errors=True)
    for row in gone:
        shutil.rmtree(_path(services, row.id).parent, ignore_errors=True)
    return len(gone)


def _known(session: Session, user: User, arrival_id: str) -> Arrival:
    row = session.get(Arrival, arrival_id)
    if row is None or row.owner_id != user.id or row.expires_at <= utc_now():
        raise NotFound(
            f"You have no upload {arrival_id[:80]} under way.",
            hint="Begin anew: what nobody goes on with is forgotten.",
        )
    return row


def _renewed(services: Services, user: User, arrival_id: str) -> ArrivalOut:
    with services.database.write() as session:
        row = _known(session, user, arrival_id)
        row.expires_at = _expiry(services)
        session.flush()
        return _out(services, row)


def _end(services: Services, arrival_id: str, *, upload_id: str | None = None, problem: Any = None) -> None:
    """Note what became of a file, whose bytes are needed no longer. Of one that was cancelled meanwhile nothing is noted."""
    with services.database.write() as session:
        ended = update(Arrival).where(Arrival.id == arrival_id)
        session.execute(ended.values(upload_id=upload_id, problem=problem or null()))
    shutil.rmtree(_path(services, arrival_id).parent, ignore_errors=True)


def _expiry(services: Services) -> datetime:
    return utc_now() + timedelta(hours=services.settings.upload_expires_h)


def _path(services: Services, arrival_id: str) -> Path:
    """Where the bytes lie. The id is one that the database knows, and so ours."""
    return services.store.uploads / f"{FOLDER}{arrival_id}" / SENT


def _out(services: Services, row: Arrival) -> ArrivalOut:
    path = _path(services, row.id)
    offset = path.stat().st_size if path.exists() else 0
    state = ArrivalState.RECEIVED if offset == row.size_bytes else ArrivalState.RECEIVING
    if row.upload_id or row.problem:
        offset, state = row.size_bytes, ArrivalState.READY if row.upload_id else ArrivalState.REFUSED
    shown = {name: getattr(row, name) for name in ArrivalOut.model_fields.keys() - {"state", "offset"}}
    return ArrivalOut(state=state, offset=offset, **shown)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Nobody else writes the file meanwhile, in any process. Raises Conflict when somebody does now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        hint = "Ask again in a second."
        raise Conflict("It is being written or read just now.", hint=hint, headers={"Retry-After": "1"}) from error
    finally:
        os.close(handle)


def _checker(checksum: str | None) -> tuple[Any, bytes]:
    """What to feed, and what it should come to; nothing where there is no checksum. Raises Unprocessable."""
    if checksum is None:
        return hashlib.sha256(), b""
    name, _, encoded = checksum.partition(" ")
    try:
        digest, wanted = ALGORITHMS[name](), b64decode(encoded, validate=True)
        if len(wanted) != digest.digest_size:
            raise ValueError(encoded)
        return digest, wanted
    except (KeyError, ValueError) as error:
        raise Unprocessable(
            f"Upload-Checksum is {checksum[:80]!r}.", hint=f"Write one of {', '.join(ALGORITHMS)}, a blank, and base64."
        ) from error


def metadata(text: str) -> dict[str, str]:
    """`title <base64>,skip_bad <base64>` as tus has it. Raises Unprocessable."""
    found = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, encoded = pair.partition(" ")
        try:
            found[name] = b64decode(encoded, validate=True).decode()
        except ValueError as error:
            raise Unprocessable(
                f"Upload-Metadata holds {pair[:80]!r}.",
                hint="Write pairs of a name and its value in base64, with commas between.",
            ) from error
    return found


def encoded(pairs: dict[str, str]) -> str:
    """The same the other way round."""
    return ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in pairs.items())


def _as_arguments(problem: dict[str, Any]) -> dict[str, Any]:
    return {"detail": problem["detail"], "hint": problem["hint"], **problem["details"]}
