"""The plain form of a new sweep: a preset or a job as base, and a row for each field that varies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from app import jobs, problems
from app.cells import pointers
from app.errors import Unprocessable
from app.models import User
from app.services import Services
from app.sweeps import SweepIn
from engine.errors import ErrorReport
from engine.presets import PRESETS

DEMO = "demo"
ROWS = 3
Posted = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the form."""

    path: str = ""
    values: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A form on its way to a sweep."""

    base: str  # preset:<name> or job:<id>
    name: str = ""
    rows: tuple[Row, ...] = (Row(),) * ROWS
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def filled(self) -> list[int]:
        """The rows that say something: the axes, in order."""
        return [index for index, row in enumerate(self.rows) if row.path or row.values]


def read(posted: Posted) -> Draft:
    """The form as it was posted."""

    def last(name: str) -> str:
        return (posted.get(name) or [""])[-1].strip()

    rows = tuple(Row(path=last(f"path{index}"), values=last(f"values{index}")) for index in range(ROWS))
    key = last("idempotency_key") or secrets.token_hex(16)
    return Draft(base=last("base"), name=last("name"), rows=rows, key=key)


def request_of(services: Services, user: User, draft: Draft) -> SweepIn:
    """What the form asks for. Raises Unprocessable with pointers as into the API's body."""
    names = _names([draft.rows[index].path for index in draft.filled])
    axes = [
        {"name": name, "path": draft.rows[index].path, "values": values_of(draft.rows[index].values)}
        for name, index in zip(names, draft.filled, strict=True)
    ]
    if not axes:
        message = "Nothing varies yet."
        raise Unprocessable(message, hint="Name a field and at least one value for it.")
    body = {"name": draft.name or None, "axes": axes} | _base(services, user, draft.base)
    try:
        return SweepIn.model_validate(body)
    except ValidationError as error:
        raise problems.invalid([one | {"loc": ("body", *one["loc"])} for one in error.errors()], body) from error


def _base(services: Services, user: User, base: str) -> dict[str, Any]:
    kind, _, name = base.partition(":")
    if kind != "job":
        return {"preset": name}
    with services.database.read() as session:
        return {"spec": jobs.get(session, user, name).spec}


def _names(paths: Sequence[str]) -> list[str]:
    """What people call the fields: the last part of the path, or all of it where that is not clear."""
    short = [path.rpartition("/")[2] for path in paths]
    return [
        one if one and short.count(one) == 1 else path.strip("/").replace("/", " ")[:40] or f"axis {index + 1}"
        for index, (one, path) in enumerate(zip(short, paths, strict=True))
    ]


def values_of(text: str) -> list[Any]:
    """`0.2, 0.5` and `resnet18, convnet3` and `[500, 500], [2000]`: JSON where it is such, else words."""
    try:
        found: list[Any] = json.loads(f"[{text}]")
    except ValueError:
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def context(services: Services, user: User, draft: Draft, error: Unprocessable | None) -> dict[str, Any]:
    """What the template needs beside the draft: choices, and each error at its row."""
    bases = [(f"preset:{preset.name}", preset.title) for preset in PRESETS.values()]
    fields: list[str] = []
    kind, _, name = draft.base.partition(":")
    if kind == "job":
        with services.database.read() as session:
            job = jobs.get(session, user, name)
        bases.insert(0, (draft.base, f"The job “{job.name}”"))
        fields = pointers(job.spec)
    elif name in PRESETS:
        fields = pointers(PRESETS[name].spec.model_dump(mode="json"))
    reports = error.errors if error else []
    by_row = [_of_row(draft, index, reports) for index in range(ROWS)]
    placed = [report for found in by_row for report in found]
    return {
        "bases": bases,
        "fields": fields,
        "row_errors": by_row,
        "name_errors": [report for report in reports if report.pointer == "/name"],
        "loose": [report for report in reports if report not in placed and report.pointer != "/name"],
    }


def _of_row(draft: Draft, index: int, reports: Sequence[ErrorReport]) -> list[ErrorReport]:
    if index not in draft.filled:
        return []
    pointer = f"/axes/{draft.filled.index(index)}/"
    return [report for report in reports if f"{report.pointer}/".startswith(pointer)]
