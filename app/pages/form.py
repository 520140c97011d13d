"""The form of a new job, made from JobSpec's own schema: a field of the spec is a field of the form, without a second list.

A field's name in the form is its JSON pointer; one of a variant says which: `/method:fadrm/alpha`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from app.pages.fields import Field, Problem, Schema, field_of, title_of
from engine.methods import TITLES as METHODS
from engine.spec import MOST_TEACHERS, JobSpec

ORDER = (*METHODS, "digits", "torchvision", "folder", "upload", "huggingface")  # of kinds: the usual ones first


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One of several kinds of a part of the spec, and its own fields."""

    value: str
    title: str
    help: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A part of the spec that is one of several kinds."""

    name: str  # of the control that chooses, e.g. "/method/method"
    variants: tuple[Variant, ...]
    value: str

    @property
    def pointer(self) -> str:
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Fields under one heading."""

    title: str
    help: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """All controls of a spec, filled in."""

    dataset: Choice
    method: Choice
    teachers: tuple[Section, ...]
    sections: dict[str, Section]
    general: Section
    loose: tuple[Problem, ...] = field(default=())  # errors that no field carries

    def fields(self) -> Iterator[Field]:
        """Every field, of every variant."""
        for choice in (self.dataset, self.method):
            for variant in choice.variants:
                yield from variant.fields
        for section in (*self.teachers, *self.sections.values(), self.general):
            yield from section.fields

    def field(self, name: str) -> Field:
        """The field of that name. Raises KeyError: a template asks for what the spec no longer has."""
        return {found.name: found for found in self.fields()}[name]


@cache
def _schema() -> dict[str, Any]:
    return JobSpec.model_json_schema()


def _resolved(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Schema = _schema()["$defs"][reference.rpartition("/")[2]]
    return found


def _fields(prefix: str, schema: Schema, values: Mapping[str, Any]) -> tuple[Field, ...]:
    """The plain properties of an object; those that are always objects themselves are sections of their own."""
    found: list[Field] = []
    for name, prop in schema["properties"].items():
        if "const" in prop or "$ref" in prop or "discriminator" in prop or "$ref" in prop.get("items", {}):
            continue
        control = field_of(f"{prefix}/{name}", prop, values.get(name, prop.get("default")))
        found.append(control)
        if control.kind == "part":
            given = control.value if isinstance(control.value, Mapping) else {}
            found.extend(_fields(control.name, _resolved(prop["anyOf"][0]), given))
    return tuple(found)


def _choice(part: str, values: Mapping[str, Any]) -> Choice:
    """A part with a discriminator: each variant with its fields, filled in where it is the chosen one."""
    schema = _schema()["properties"][part]
    key, chosen = schema["discriminator"]["propertyName"], values.get(schema["discriminator"]["propertyName"])
    variants = []
    mapping = schema["discriminator"]["mapping"]
    for value in sorted(mapping, key=lambda value: ORDER.index(value) if value in ORDER else len(ORDER)):
        variant = _resolved({"$ref": mapping[value]})
        given = values if value == chosen else {}
        fields = _fields(f"/{part}:{value}", variant, given)
        about = variant.get("description", "").partition("\n\n")[0]
        variants.append(Variant(value=value, title=title_of(value), help=about, fields=fields))
    return Choice(name=f"/{part}/{key}", variants=tuple(variants), value=chosen or variants[0].value)


def _section(part: str, schema: Schema, values: Mapping[str, Any], title: str) -> Section:
    return Section(title=title, help=schema.get("description", ""), fields=_fields(f"/{part}", schema, values))


def build(spec: Mapping[str, Any], errors: Sequence[Problem] = ()) -> Form:
    """The form with a spec's values in it. The spec may be invalid: what was typed comes back, with its errors."""
    teacher = _resolved(_schema()["properties"]["teachers"]["items"])
    teachers = [value if isinstance(value, Mapping) else {} for value in spec.get("teachers") or [{}]]
    sections = {}
    for part, schema in _schema()["properties"].items():
        if "$ref" in schema:
            sections[part] = _section(part, _resolved(schema), spec.get(part) or {}, title_of(part))
    form = Form(
        dataset=_choice("dataset", spec.get("dataset") or {}),
        method=_choice("method", spec.get("method") or {}),
        teachers=tuple(
            _section(f"teachers/{index}", teacher, values, f"Teacher {index + 1}")
            for index, values in enumerate(teachers)
        ),
        sections=sections,
        general=Section(title="General", help="", fields=_fields("", _schema(), spec)),
    )
    return _with_errors(form, errors)


def _with_errors(form: Form, errors: Sequence[Problem]) -> Form:
    """Each error at the field that it points at or into; the others at the head of the form."""
    shown = [found for found in form.fields() if _is_chosen(form, found)]
    placed = {found.name: tuple(error for error in errors if found.carries(error)) for found in shown}
    carried = {id(error) for found in placed.values() for error in found}

    def marked(fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(replace(found, errors=placed.get(found.name, ())) for found in fields)

    def of_choice(choice: Choice) -> Choice:
        return replace(choice, variants=tuple(replace(kind, fields=marked(kind.fields)) for kind in choice.variants))

    def of_section(section: Section) -> Section:
        return replace(section, fields=marked(section.fields))

    return replace(
        form,
        dataset=of_choice(form.dataset),
        method=of_choice(form.method),
        teachers=tuple(map(of_section, form.teachers)),
        sections={part: of_section(section) for part, section in form.sections.items()},
        general=of_section(form.general),
        loose=tuple(error for error in errors if id(error) not in carried),
    )


def _is_chosen(form: Form, found: Field) -> bool:
    part, _, variant = found.name.split("/")[1].partition(":")
    return not variant or variant == {"dataset": form.dataset, "method": form.method}[part].value


def read(form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A posted form as a spec, to be validated like any other."""
    spec: dict[str, Any] = {"teachers": [{} for _ in range(_count_teachers(form))]}
    for choice in (_choice("dataset", {}), _choice("method", {})):
        value = (form.get(choice.name) or [choice.value])[-1]
        spec[choice.pointer.strip("/")] = {choice.name.rpartition("/")[2]: value}
    blank = build(spec)
    absent: set[str] = set()  # parts that were not asked for
    for found in blank.fields():
        if _is_chosen(blank, found) and found.pointer.rpartition("/")[0] not in absent:
            if found.kind == "part" and not form.get(found.name):
                absent.add(found.pointer)
            _put(spec, found.pointer.split("/")[1:], found.read(form))
    return spec


def _count_teachers(form: Mapping[str, Sequence[str]]) -> int:
    indices = {name.split("/")[2] for name in form if name.startswith("/teachers/")}
    return min(max(len(indices), 1), MOST_TEACHERS)


def _put(spec: dict[str, Any], path: list[str], value: Any) -> None:
    place: Any = spec
    for part in path[:-1]:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[path[-1]] = value
