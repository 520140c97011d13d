"""A file that a form sends, for browsers without scripts: taken into the store's own folder, then looked at in its turn."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fastapi import UploadFile

from app import sent
from app.errors import Unprocessable
from app.models import UploadKind, User
from app.planning import NAME
from app.sent import SENT
from app.services import Services

COPIED = 2**20  # bytes at a time
Made = TypeVar("Made")


def title_of(title: str, file: UploadFile) -> str:
    """The title that was written, or the file's name. Raises Unprocessable."""
    try:
        return NAME.validate_python(title or Path(file.filename or "upload").stem[:80])
    except ValueError as error:
        raise Unprocessable("The title is no name.", hint="Use printed characters.") from error


def kept(
    services: Services,
    user: User,
    file: UploadFile,
    kind: UploadKind,
    keep: Callable[[Path, str], tuple[Made, bool]],
) -> Made:
    """What `keep` makes of the folder that a form's file is in, and its SHA-256. The route has a turn for it."""
    sent.check_room(services, user, file.size or 0, kind)
    folder = sent.new_folder(services.store.uploads)
    try:
        with sent.room(), (folder / SENT).open("wb") as target:
            shutil.copyfileobj(file.file, target, COPIED)
        with (folder / SENT).open("rb") as taken:
            sha256 = hashlib.file_digest(taken, "sha256").hexdigest()
        return keep(folder, sha256)[0]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
