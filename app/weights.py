"""Weights of teachers that people send: safetensors alone, looked at in a process of its own, and whole weights of the network
that they are said to be of. What is the same for all that people send is in `app.sent`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import confined
from app.errors import Unprocessable
from app.models import Upload as Row
from app.models import UploadKind, User
from app.sent import HELD, MADE, NAMELESS, SENT, add, hold, known, label_of, room
from app.services import Services
from app.tensors import Header
from app.visibility import visible_to
from engine.datasets import Facts
from engine.errors import ErrorReport
from engine.networks import NETWORKS
from engine.shapes import CONVERT, Form, faults_as, recognised
from engine.sources import UPLOADED_WEIGHTS
from engine.spec import JobSpec
from engine.store import sync

KIND = UploadKind.WEIGHTS
TITLE = NAMELESS[KIND]


class WeightsOut(BaseModel):
    """Weights that somebody sent."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="SHA-256 of the file.")
    title: str
    owner: str
    network: str
    classes: int
    sides: str = Field(description="Of the images that they are for: `below 128 px`, `from 128 px`.")
    dtypes: list[str] = Field(description="Of their floating-point tensors.")
    size_bytes: int
    visibility: str = Field(description="Who sees and uses them besides their owner: private, team or all.")
    held: bool = Field(False, description=HELD)
    created_at: datetime
    teacher: dict[str, Any] = Field(description="What to write under `teachers` in a spec.")


def check_network(name: str) -> str:
    """A network that is known. Raises Unprocessable."""
    if name in NETWORKS:
        return name
    message = f"{name[:80]!r} is no network that is known here."
    hint = f"Choose one of {', '.join(NETWORKS)}."
    report = ErrorReport(code="unknown_network", message=message, hint=hint, pointer="/network")
    raise Unprocessable(message, hint=hint, errors=[report])


def keep(
    services: Services,
    owner: User,
    folder: Path,
    sha256: str,
    title: str,
    network: str,
    *,
    arrival: str | None = None,
) -> tuple[WeightsOut, bool]:
    """Take what was received as a network's weights; whether they are new. Removes `folder`.

    arrival: what they came by, where they came in pieces. Raises Unprocessable, and TooMany past the user's quota.
    """
    try:
        is_new = False
        if not hold(services, owner, sha256, KIND, title):
            form, dtypes = _judged(confined.read_header(folder / SENT, services.settings), network)
            made = folder / MADE
            with room():
                made.mkdir()
                os.link(folder / SENT, made / UPLOADED_WEIGHTS)
                sync(made / UPLOADED_WEIGHTS)
                sync(made)
            size_bytes = (folder / SENT).stat().st_size
            facts = {"network": network, "classes": form.classes, "resolution": form.resolution, "dtypes": dtypes}
            row = Row(id=sha256, kind=KIND, owner_id=owner.id, title=title, size_bytes=size_bytes, facts=facts)
            row.held_bytes = size_bytes
            is_new = add(services, owner, row, made, arrival=arrival)
        found = get(services, owner, sha256)
        if found.network != network:
            raise _refused(f"These weights are of {found.network}, and not of {network}.", f"Send {found.network}.")
        return found, is_new
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judged(header: Header, network: str) -> tuple[Form, list[str]]:
    """The form of the network that the weights are of, and their types. Raises Unprocessable."""
    form = recognised(header.shapes, (network,))
    if form is None:
        other = recognised(header.shapes)
        if other is not None:
            raise _refused(
                f"The file does not hold the weights of {network}, but of {other}.", f"Send it as {other.network}."
            )
        raise _refused(
            f"The file does not hold the weights of {network}: {faults_as(header.shapes, network)}.",
            f"Send the whole state_dict() of one network and nothing else. A file is checked beforehand by {CONVERT}",
        )
    if form.classes < 1:
        raise _refused("The network's last layer has no class.", "Send weights that were trained.")
    return form, header.dtypes


def _refused(message: str, hint: str) -> Unprocessable:
    report = ErrorReport(code="weights_invalid", message=message, hint=hint, pointer="/network")
    return Unprocessable(message, hint=hint, errors=[report])


def get(services: Services, user: User, upload_id: str) -> WeightsOut:
    """Those that the user may see. Raises NotFound."""
    with services.database.read() as session:
        return _out(session, user, known(session, user, upload_id, KIND))


def listed(services: Services, user: User) -> list[WeightsOut]:
    """All that the user may see, the newest first."""
    query = select(Row).where(Row.kind == KIND, visible_to(user, Row)).order_by(Row.created_at.desc())
    with services.database.read() as session:
        return [_out(session, user, row) for row in session.scalars(query)]


def unfit(session: Session, spec: JobSpec, facts: Facts) -> Iterator[ErrorReport]:
    """What of a spec's uploaded teachers does not fit its data set. That the user may see them was seen before."""
    for index, teacher in enumerate(spec.teachers):
        row = session.get(Row, teacher.upload) if teacher.upload else None
        if row is None:
            continue
        form, count, side = _form(row), len(facts.classes), facts.resolution
        if form.network != teacher.network:
            message, field = f"These weights are of {form.network}, and the network is {teacher.network}", "network"
            hint = f"Write {form.network}."
        elif form.classes != count:
            message, field = f"These weights know {form.classes:,} classes, and the data set has {count:,}", "upload"
            hint = "Choose weights that were trained on these classes, in this order."
        elif not form.takes(side):
            message, field = f"These weights are for images {form.sides}, and these are {side} px", "upload"
            hint = "Choose weights for this size, or another resolution."
        else:
            continue
        pointer = f"/teachers/{index}/{field}"
        yield ErrorReport(code="weights_invalid", message=f"{message}.", hint=hint, pointer=pointer)


def _form(row: Row) -> Form:
    return Form(**{name: row.facts[name] for name in ("network", "classes", "resolution")})


def _out(session: Session, user: User, row: Row) -> WeightsOut:
    form = _form(row)
    return WeightsOut(
        id=row.id,
        **asdict(label_of(session, user, row)),
        network=form.network,
        classes=form.classes,
        sides=form.sides,
        dtypes=row.facts["dtypes"],
        size_bytes=row.size_bytes,
        created_at=row.created_at,
        teacher={"network": form.network, "upload": row.id},
    )
