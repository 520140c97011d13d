"""Uploaded archives as data sets: unpacked, listed. What is the same for all that people send is in `app.sent`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import confined
from app.datasets import DatasetOut, within_archive
from app.errors import Unprocessable
from app.models import Upload as Row
from app.models import UploadKind, User
from app.sent import HELD, MADE, SENT, add, hold, known, label_of, labels_of, room
from app.services import Services
from app.unpacking import BadImage, Unpacked
from app.visibility import visible_to
from engine.datasets import UPLOAD_TITLE, describe
from engine.errors import EngineError
from engine.folders import TEST_FOLDERS
from engine.sources import UNPACKED, Folder, Upload
from engine.store import write_atomically

KIND = UploadKind.IMAGES


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
    held: bool = Field(False, description=HELD)
    created_at: datetime
    dataset: Upload = Field(description="What to write under `dataset` in a spec.")


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
        if hold(services, owner, sha256, KIND, title):
            return get(services, owner, sha256), False
        with room():
            made = folder / MADE
            found = confined.unpack(folder / SENT, made / UNPACKED, services.settings, skip_bad=skip_bad)
            counts = _counted(made, found)
            write_atomically(made / UPLOAD_TITLE, title.encode())
        row = Row(
            id=sha256,
            kind=KIND,
            owner_id=owner.id,
            title=title,
            size_bytes=(folder / SENT).stat().st_size,
            held_bytes=counts.unpacked_bytes,
            facts=counts.model_dump(),
        )
        is_new = add(services, owner, row, made, arrival=arrival)
        return get(services, owner, sha256), is_new
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def get(services: Services, user: User, upload_id: str) -> UploadOut:
    """One that the user may see. Raises NotFound."""
    with services.database.read() as session:
        return _out(session, user, known(session, user, upload_id, KIND))


def listed(services: Services, user: User) -> list[DatasetOut]:
    """All that the user may see as data sets to choose, the newest first."""
    query = select(Row).where(Row.kind == KIND, visible_to(user, Row)).order_by(Row.created_at.desc())
    with services.database.read() as session:
        rows = session.scalars(query).all()
        labels = labels_of(session, user, rows)
        found = [(row, labels[row.id]) for row in rows]
    return [
        DatasetOut(
            title=label.title,
            dataset=Upload(id=row.id),
            classes=len(row.facts["classes"]),
            has_test=row.facts["has_test"],
            note=f"Uploaded by {label.owner}.",
            visibility=label.visibility,
        )
        for row, label in found
    ]


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


def _out(session: Session, user: User, row: Row) -> UploadOut:
    return UploadOut(
        id=row.id,
        **asdict(label_of(session, user, row)),
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        dataset=Upload(id=row.id),
        **row.facts,
    )
