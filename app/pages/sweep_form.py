"""The plain form of a new sweep: a preset, a job or a sweep as base, and a row for each thing that varies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from app import jobs, problems, sweeps, visibility
from app.cells import MAX_AXES, Axis, pointers
from app.errors import Unprocessable
from app.models import Job, Sweep, User
from app.pages.new import Posted, key_of
from app.services import Services
from app.sweeps import SweepIn
from engine.errors import ErrorReport
from engine.presets import PRESETS

DEMO = "demo"
ROWS = 3
FIELDS = ("name", "path", "values", "variants")  # of a row
OWN: dict[str, Callable[[Session, User, str], Job | Sweep]] = {"job": jobs.get, "sweep": sweeps.get}
ALTERNATIVES: TypeAdapter[dict[str | int | float, Any]] = TypeAdapter(dict[str | int | float, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One axis: a field with values, or alternatives that change several fields each."""

    name: str = ""
    path: str = ""
    values: str = ""
    variants: str = ""  # YAML: title -> patch

    @property
    def is_filled(self) -> bool:
        """Whether it says what varies."""
        return bool(self.path or self.values or self.variants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A form on its way to a sweep."""

    base: str  # preset:<name>, job:<id> or sweep:<id>
    name: str = ""
    rows: tuple[Row, ...] = (Row(),) * ROWS
    visibility: str = ""  # empty: as the server has it
    key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def filled(self) -> list[int]:
        """The rows that say something: the axes, in order."""
        return [index for index, row in enumerate(self.rows) if row.is_filled]


def read(posted: Posted) -> Draft:
    """The form as it was posted."""

    def last(name: str) -> str:
        return (posted.get(name) or [""])[-1].strip()

    found = [Row(**{name: last(f"{name}{index}") for name in FIELDS}) for index in range(MAX_AXES)]
    filled = [index + 1 for index, row in enumerate(found) if row.is_filled or row.name]
    rows = tuple(found[: max([ROWS, *filled])])
    return Draft(base=last("base"), name=last("name"), rows=rows, visibility=last("visibility"), key=key_of(posted))


def again(services: Services, user: User, sweep_id: str) -> Draft:
    """A form that asks for what a sweep was asked. Raises NotFound."""
    with services.database.read() as session:
        sweep = sweeps.get(session, user, sweep_id)
        rows = [_row_of(axis) for axis in sweeps.axes_of(sweep)]
    rows += [Row()] * (ROWS - len(rows))
    return Draft(base=f"sweep:{sweep_id}", name=sweep.name, rows=tuple(rows))


def _row_of(axis: Axis) -> Row:
    if axis.variants is None:
        return Row(name=axis.name, path=axis.path or "", values=", ".join(map(json.dumps, axis.values or ())))
    lines = [f"{json.dumps(one.title)}: {json.dumps(one.patch)}" for one in axis.variants]
    return Row(name=axis.name, variants="\n".join(lines))


def request_of(services: Services, user: User, draft: Draft) -> SweepIn:
    """What the form asks for. Raises Unprocessable with pointers as into the API's body."""
    rows = [draft.rows[index] for index in draft.filled]
    axes = [_axis(row, name, place) for place, (row, name) in enumerate(zip(rows, _names(rows), strict=True))]
    if not axes:
        message = "Nothing varies yet."
        raise Unprocessable(message, hint="Name a field and at least one value for it.")
    body = {"name": draft.name or None, "visibility": draft.visibility or None, "axes": axes}
    body |= _base(services, user, draft.base)
    try:
        return SweepIn.model_validate(body)
    except ValidationError as error:
        raise problems.invalid([one | {"loc": ("body", *one["loc"])} for one in error.errors()], body) from error


def _axis(row: Row, name: str, place: int) -> dict[str, Any]:
    """As the API wants it; whoever fills in both ways is told so there."""
    axis: dict[str, Any] = {"name": name}
    if row.variants:
        axis["variants"] = [{"title": title, "patch": patch} for title, patch in _variants(row.variants, place)]
    if row.path or row.values:
        axis |= {"path": row.path, "values": values_of(row.values)}
    return axis


def _variants(text: str, place: int) -> list[tuple[str, Any]]:
    """Title and patch of each line. Raises Unprocessable for what is no YAML mapping, or refers to itself."""
    try:
        has_alias = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))
        found = ALTERNATIVES.validate_python(None if has_alias else yaml.safe_load(text))
    except (ValueError, RecursionError, yaml.YAMLError) as error:  # an alias could make a small text a huge value
        message = "The alternatives are no list of titles and changes."
        hint = "Write one a line: a title, a colon, and in braces what it changes, such as Adam: {method: {lr: 0.1}}."
        report = ErrorReport(code="invalid", message=message, hint=hint, pointer=f"/axes/{place}/variants")
        raise Unprocessable(message, hint=hint, errors=[report]) from error
    return [(str(title), patch or {}) for title, patch in found.items()]


def _base(services: Services, user: User, base: str) -> dict[str, Any]:
    kind, _, name = base.partition(":")
    if kind not in OWN:
        return {"preset": name}
    with services.database.read() as session:
        return {"spec": OWN[kind](session, user, name).spec}


def _names(rows: Sequence[Row]) -> list[str]:
    """What people call the axes: as they say, else the last part of the path, or all of it where that is not clear."""
    short = [row.name or row.path.rpartition("/")[2] for row in rows]
    return [
        one if one and short.count(one) == 1 else row.path.strip("/").replace("/", " ")[:40] or f"axis {index + 1}"
        for index, (one, row) in enumerate(zip(short, rows, strict=True))
    ]


def values_of(text: str) -> list[Any]:
    """`0.2, 0.5` and `resnet18, convnet3` and `[500, 500], [2000]`: JSON where it is such, else words."""
    try:
        found: list[Any] = json.loads(f"[{text}]")
    except (ValueError, RecursionError):
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def context(services: Services, user: User, draft: Draft, error: Unprocessable | None) -> dict[str, Any]:
    """What the template needs beside the draft: choices, and each error at its row."""
    fields: list[str] = []
    own: Job | Sweep | None = None
    bases: dict[str, list[tuple[str, str]]] = {}
    kind, _, name = draft.base.partition(":")
    if kind in OWN:
        with services.database.read() as session:
            own = OWN[kind](session, user, name)
        bases["Yours"] = [(draft.base, f"The {kind} “{own.name}”")]
        fields = pointers(own.spec)
    elif name in PRESETS:
        fields = pointers(PRESETS[name].spec.model_dump(mode="json"))
    for preset in PRESETS.values():
        bases.setdefault(preset.group, []).append((f"preset:{preset.name}", preset.title))
    with services.database.read() as session:
        seen_by = visibility.chosen(
            session, user, visibility.of_a_copy(user, own) if own else None, services.settings.visibility
        )
    reports = error.errors if error else []
    by_row = [_of_row(draft, index, reports) for index in range(len(draft.rows))]
    placed = [report for found in by_row for report in found]
    return {
        "visibility": draft.visibility or seen_by,
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
