"""From a base spec and axes to the cells of a sweep: each combination as a spec, or what is wrong, with axis and cell named."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from app import problems
from app.errors import Unprocessable
from app.planning import merged_with, printable
from engine.errors import ErrorReport
from engine.fields import DEEPEST, shallow
from engine.spec import JobSpec, sha256_of

MAX_AXES = 6
TITLE = 40  # characters of an axis's name and of a value's title


def _storable(value: Any) -> Any:
    try:
        json.dumps(shallow(value), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:  # of the form's YAML, dates, bytes and sets are no JSON
        raise ValueError(
            f"it should hold what JSON has, finite numbers, whole characters, and not nest more than {DEEPEST} deep"
        ) from error
    return value


Title = Annotated[str, Field(max_length=TITLE), AfterValidator(printable)]
Value = Annotated[Any, AfterValidator(_storable)]
Patch = Annotated[dict[str, Any], AfterValidator(_storable)]


class Variant(BaseModel):
    """One alternative: several fields that change together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Title = Field(description="For people, in the table and in the plot.")
    patch: Patch = Field(
        description="Merged into the spec (RFC 7396); naming another method or source replaces that part."
    )


MOST_VALUES = 10_000  # of an axis, before anything is counted


class Axis(BaseModel):
    """What varies: one field by its path, with values, or several fields together, as variants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Title = Field(description="For people: the column's head, the plot's axis.")
    path: str | None = Field(None, max_length=200, description="JSON pointer into the spec, such as `/method/alpha`.")
    values: list[Value] | None = Field(
        None, min_length=1, max_length=MOST_VALUES, description="What stands there in turn."
    )
    variants: list[Variant] | None = Field(
        None, min_length=1, max_length=MOST_VALUES, description="Instead of path and values."
    )

    @property
    def titles(self) -> list[str]:
        """What people read for each place on the axis."""
        if self.variants is not None:
            return [variant.title for variant in self.variants]
        return [title_of(value) for value in self.values or ()]

    @property
    def numbers(self) -> list[float] | None:
        """The values, where all of them are numbers."""
        values = self.values or ()
        is_numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        return [float(value) for value in values] if values and is_numeric else None


def title_of(value: Any) -> str:
    """`0.5`, `resnet18`, `500, 500`; long ones are cut."""
    plain = isinstance(value, list) and not any(isinstance(part, list | dict) for part in value)
    text = ", ".join(map(title_of, value)) if plain else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= TITLE else f"{text[: TITLE - 1]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination: its place on each axis, what people call it, and the spec as it would be validated."""

    at: tuple[int, ...]
    title: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Something that is wrong in one cell. `report` points into the request."""

    cell: Cell
    report: ErrorReport


def check_axes(axes: Sequence[Axis], most: int) -> None:
    """Raises Unprocessable when the axes by themselves make no sense, or more than `most` cells."""
    wrong = [*_unclear(axes), *_repeated(axes)]
    count = prod(len(axis.titles) for axis in axes)
    if count > most:
        sizes = " x ".join(str(len(axis.titles)) for axis in axes)
        hint = "Leave out values, make several sweeps, or ask an administrator to raise FADRM_MAX_JOBS_PER_SWEEP."
        message = f"The axes make {sizes} = {count} jobs, and the limit is {most}."
        wrong.append(ErrorReport(code="too_many_jobs", message=message, hint=hint, pointer="/axes"))
    if wrong:
        raise refusal(wrong)


def _unclear(axes: Sequence[Axis]) -> Iterator[ErrorReport]:
    for index, axis in enumerate(axes):
        by_path, by_patch = axis.path is not None and axis.values is not None, axis.variants is not None
        if by_path == by_patch or (axis.path is None) != (axis.values is None):
            message = f"The axis {axis.name!r} does not say in one way what varies."
            hint = "Give path and values, or variants, and not both."
            yield ErrorReport(code="unclear_axis", message=message, hint=hint, pointer=f"/axes/{index}")


def _repeated(axes: Sequence[Axis]) -> Iterator[ErrorReport]:
    hint = "Leave one of them out, or name it differently."
    for index in _again([axis.name for axis in axes]):
        message = f"Two axes have the name {axes[index].name!r}."
        yield ErrorReport(code="duplicate", message=message, hint=hint, pointer=f"/axes/{index}/name")
    for place, axis in enumerate(axes):
        found = [("values", index) for index in _again([sha256_of(_plain(value)) for value in axis.values or ()])]
        found += [("variants", index) for index in _again([variant.title for variant in axis.variants or ()])]
        for part, index in found:
            message = f"The axis {axis.name!r} has {axis.titles[index]!r} twice."
            pointer = f"/axes/{place}/{part}/{index}"
            yield ErrorReport(code="duplicate", message=message, hint=hint, pointer=pointer)


def _plain(value: Any) -> Any:
    """1.0 is 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _again(names: Sequence[str]) -> list[int]:
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    return [index for index, name in enumerate(names) if first[name] != index]


def cells(base: JobSpec, axes: Sequence[Axis]) -> Iterator[Cell | Complaint]:
    """Every combination, the last axis the fastest. Variants come first, so that a path finds what they bring."""
    plain = base.model_dump(mode="json")
    for at in itertools.product(*(range(len(axis.titles)) for axis in axes)):
        title = ", ".join(f"{axis.name} {axis.titles[place]}" for axis, place in zip(axes, at, strict=True))
        body, lost = _moved(plain, axes, at)
        cell = Cell(at=at, title=title, body=body)
        yield cell if lost is None else Complaint(cell=cell, report=lost)


def _moved(body: dict[str, Any], axes: Sequence[Axis], at: Sequence[int]) -> tuple[dict[str, Any], ErrorReport | None]:
    """The spec with what each axis puts there; the path that leads nowhere, if there is one."""
    for axis, place in zip(axes, at, strict=True):
        if axis.variants is not None:
            body = _completed(merged_with(body, axis.variants[place].patch))
    for index, (axis, place) in enumerate(zip(axes, at, strict=True)):
        if axis.path is not None and axis.values is not None:
            try:
                body = _put(body, parts_of(axis.path), axis.values[place])
            except KeyError:
                return body, _no_such_path(body, index, axis.path)
    return body, None


def _completed(body: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of a method or source that a patch has just brought; as it is while it is not valid."""
    try:
        return JobSpec.model_validate(body).model_dump(mode="json")
    except ValidationError:
        return body


def parts_of(pointer: str) -> list[str]:
    """A JSON pointer (RFC 6901) as the names that it goes through. Raises KeyError for what is none."""
    if not pointer.startswith("/"):
        raise KeyError(pointer)
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer[1:].split("/")]


def _put(whole: Any, parts: Sequence[str], value: Any) -> Any:
    """A copy with another value at an existing place."""
    if not parts:
        return value
    name, rest = parts[0], parts[1:]
    if isinstance(whole, list) and name.isdecimal() and int(name) < len(whole):
        index = int(name)
        return [*whole[:index], _put(whole[index], rest, value), *whole[index + 1 :]]
    if isinstance(whole, dict) and name in whole:
        return whole | {name: _put(whole[name], rest, value)}
    raise KeyError(name)


def _no_such_path(body: dict[str, Any], index: int, path: str) -> ErrorReport:
    near = difflib.get_close_matches(path, pointers(body), n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}?" if near else "Give a JSON pointer to a field of the spec, such as /method/alpha."
    return ErrorReport(
        code="unknown_path", message=f"The spec has no field {path!r}.", hint=hint, pointer=f"/axes/{index}/path"
    )


def pointers(value: Any) -> list[str]:
    """JSON pointers to everything in a value, from the outside in."""
    return list(_below(value, ""))


def _below(value: Any, prefix: str) -> Iterator[str]:
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for name, part in inner:
        yield f"{prefix}/{name}"
        yield from _below(part, f"{prefix}/{name}")


def spec_of(cell: Cell) -> JobSpec:
    """The cell's spec. Raises Unprocessable with pointers into `/spec`, as a job's would."""
    try:
        return JobSpec.model_validate(cell.body)
    except ValidationError as error:
        raise problems.invalid(error.errors(), cell.body, prefix="/spec") from error


def blamed(error: Unprocessable, cell: Cell, axes: Sequence[Axis]) -> list[Complaint]:
    """What is wrong with a cell's spec, pointing at the axis that put it there, or else into the base spec."""
    reports = error.errors or [ErrorReport(code=error.code, message=error.detail, hint=error.hint)]
    return [Complaint(cell=cell, report=_pointed(report, cell, axes)) for report in reports]


def _pointed(report: ErrorReport, cell: Cell, axes: Sequence[Axis]) -> ErrorReport:
    within = report.pointer.removeprefix("/spec")
    brought = {
        pointer: axis.path is not None  # what a path brought was put there last
        for index, axis in enumerate(axes)
        if (pointer := _brought(within, axis, cell.at[index], f"/axes/{index}")) is not None
    }
    pointer = max(brought, key=lambda found: (brought[found], len(found)), default=f"/spec{within}")
    return report.model_copy(update={"pointer": pointer})


def _brought(within: str, axis: Axis, place: int, prefix: str) -> str | None:
    """Where an axis wrote what a pointer into the spec points at; None when it did not."""
    if axis.path is not None:
        if f"{within}/".startswith(f"{axis.path}/"):
            return f"{prefix}/values/{place}{within[len(axis.path) :]}"
        return f"{prefix}/values/{place}" if axis.path.startswith(f"{within}/") and within else None
    assert axis.variants is not None
    pointer, reached = f"{prefix}/variants/{place}/patch", 0
    value: Any = axis.variants[place].patch
    for part in within.split("/")[1:]:
        if not isinstance(value, dict) or part not in value:
            break
        pointer, value, reached = f"{pointer}/{part}", value[part], reached + 1
    return pointer if reached else None


def refusal(reports: Sequence[ErrorReport]) -> Unprocessable:
    """Several reasons as one answer."""
    told = list(reports[: problems.TOLD])
    first = told[0]
    detail = first.message if len(reports) == 1 else f"{len(reports)} things are wrong. First: {first.message}"
    return Unprocessable(detail, hint=first.hint, errors=told)


def told_once(complaints: Sequence[Complaint], count: int) -> list[ErrorReport]:
    """What is wrong in the same way in several of `count` cells is said once, with the first of them named."""
    alike: dict[tuple[str, str, str], list[Complaint]] = {}
    for complaint in complaints:
        report = complaint.report
        alike.setdefault((report.pointer, report.code, report.message), []).append(complaint)
    return [_summed(found, count) for found in alike.values()]


def _summed(found: Sequence[Complaint], count: int) -> ErrorReport:
    report, cell = found[0].report, found[0].cell.title
    if len(found) == count and count > 1:
        where = "In every cell"
    else:
        where = f"In {len(found)} cells, first {cell}" if len(found) > 1 else f"In the cell {cell}"
    return report.model_copy(update={"message": f"{where}: {report.message}"})
