"""The form of a new job, made from JobSpec's own schema: a field of the spec is a field of the form, without a second list.

A field's name in the form is its JSON pointer; one of a variant says which: `/method:fadrm/alpha`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import isfinite
from typing import Any, Literal, Protocol

from engine.networks import NETWORKS
from engine.spec import JobSpec

Kind = Literal["integer", "number", "boolean", "text", "choice", "choices", "numbers"]
Schema = Mapping[str, Any]
MAX_TEACHERS = 8

# What a reader sees for names that only their authors would know; all others are made from the name.
LABELS = {
    "/ipc": "Images per class (ipc)",
    "/teachers/0/network": "Teacher",
    "/teachers/0/epochs": "Epochs of the teacher",
    "/flip": "Mirror images in augmentation",
    "/method:fadrm/alpha": "Mixing weight α",
    "/method:fadrm/budgets": "Iterations of each stage",
    "/method:fadrm/sizes": "Resolution of each stage, px",
    "/method:fadrm/lr": "Learning rate of the images",
    "/method:fadrm/r_bn": "Weight of batch-norm distance",
    "/method:fadrm/first_bn": "Factor of the first batch norm",
    "/method:fadrm/betas": "Adam's betas",
    "/method:fadrm/crop": "Random resized crop",
    "/method:fadrm/jitter": "Largest roll, px",
    "/method:fadrm/batch": "Classes optimised together",
    "/labels/statistics": "Batch norm while labelling",
    "/labels/cutmix": "CutMix",
    "/evaluation/eta": "Smoothing of the learning rate η",
    "/evaluation/every": "Test every so many epochs",
    "/evaluation/runs": "Runs of each student",
    "/resources/ipcs_per_step": "Images per class of one step",
}
WORDS = {"lr": "Learning rate", "name": "Data set"}
TITLES = {
    "digits": "Digits",
    "folder": "Folder on the server",
    "torchvision": "Torchvision",
    "fadrm": "FADRM",
    "rded": "RDED",
    "random": "Random real images",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "sgd": "SGD",
    "adamw": "AdamW",
    **{name: network.title for name, network in NETWORKS.items()},
}


class Problem(Protocol):
    """An error that may point at a field (engine.errors.ErrorReport is one)."""

    @property
    def pointer(self) -> str: ...

    @property
    def message(self) -> str: ...

    @property
    def hint(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control."""

    name: str  # in the form
    kind: Kind
    label: str
    help: str = ""
    choices: tuple[tuple[str, str], ...] = ()  # value, title
    nullable: bool = False  # empty means: decide for me
    minimum: float | None = None
    maximum: float | None = None
    value: Any = None  # as in the spec, or the text that was typed
    errors: tuple[Problem, ...] = ()

    @property
    def pointer(self) -> str:
        """Where the value stands in the spec."""
        return "/".join(part.partition(":")[0] for part in self.name.split("/"))

    @property
    def id(self) -> str:
        return "f" + self.name.replace("/", "-").replace(":", "-")

    @property
    def bounds(self) -> str:
        """`1 to 5000`."""
        if self.minimum is None or self.maximum is None:
            return ""
        return f"{_typed(self.minimum)} to {_typed(self.maximum)}."

    @property
    def text(self) -> str:
        """The value as one types it."""
        if self.value is None:
            return ""
        if isinstance(self.value, (list, tuple)):
            return ", ".join(map(_typed, self.value))
        return _typed(self.value)

    def read(self, form: Mapping[str, Sequence[str]]) -> Any:
        """The value that a posted form gives. Text that is no number stays text: the spec's own check names it."""
        given = form.get(self.name, ())
        if self.kind == "boolean":
            return bool(given)
        if self.kind == "choices":
            return list(given)
        text = given[-1].strip() if given else ""
        if not text and self.nullable:
            return None
        if self.kind == "numbers":
            return [_number(part) for part in text.replace(",", " ").split()]
        return _number(text) if self.kind in ("integer", "number") or self._numeric_choice else text

    @property
    def _numeric_choice(self) -> bool:
        return self.kind == "choice" and all(value.isdigit() for value, _ in self.choices)


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


def _typed(value: Any) -> str:
    if isinstance(value, float):
        short = f"{value:.10g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if isfinite(value) else text
    return text


def _title(value: Any) -> str:
    return TITLES.get(str(value), str(value).replace("_", " ").capitalize())


def _label(name: str) -> str:
    last = name.rpartition("/")[2]
    return LABELS.get(name) or WORDS.get(last) or last.replace("_", " ").capitalize()


@cache
def _schema() -> dict[str, Any]:
    return JobSpec.model_json_schema()


def _resolved(schema: Schema) -> Schema:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: Schema = _schema()["$defs"][reference.rpartition("/")[2]]
    return found


def _field(name: str, schema: Schema, value: Any) -> Field:
    """One property of an object as a control."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    inner = kinds[0] if kinds else schema
    choices = inner.get("enum") or inner.get("items", {}).get("enum") or ()
    return Field(
        name=name,
        kind=_kind(inner),
        label=_label(name),
        help=schema.get("description", ""),
        choices=tuple((str(choice), _title(choice)) for choice in choices),
        nullable=bool(kinds),
        minimum=inner.get("minimum", inner.get("exclusiveMinimum")),
        maximum=inner.get("maximum", inner.get("exclusiveMaximum")),
        value=value,
    )


def _kind(schema: Schema) -> Kind:
    if schema.get("type") == "array":
        return "choices" if "enum" in schema.get("items", {}) else "numbers"
    if "enum" in schema:
        return "choice"
    kinds: dict[str, Kind] = {"integer": "integer", "number": "number", "boolean": "boolean"}
    return kinds.get(schema.get("type", ""), "text")


def _fields(prefix: str, schema: Schema, values: Mapping[str, Any]) -> tuple[Field, ...]:
    """The plain properties of an object; those that are objects themselves are sections of their own."""
    return tuple(
        _field(f"{prefix}/{name}", prop, values.get(name, prop.get("default")))
        for name, prop in schema["properties"].items()
        if "const" not in prop
        and "$ref" not in prop
        and "discriminator" not in prop
        and "$ref" not in prop.get("items", {})
    )


def _choice(part: str, values: Mapping[str, Any]) -> Choice:
    """A part with a discriminator: each variant with its fields, filled in where it is the chosen one."""
    schema = _schema()["properties"][part]
    key, chosen = schema["discriminator"]["propertyName"], values.get(schema["discriminator"]["propertyName"])
    variants = []
    for value, reference in schema["discriminator"]["mapping"].items():
        variant = _resolved({"$ref": reference})
        given = values if value == chosen else {}
        fields = _fields(f"/{part}:{value}", variant, given)
        variants.append(Variant(value=value, title=_title(value), help=variant.get("description", ""), fields=fields))
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
            sections[part] = _section(part, _resolved(schema), spec.get(part) or {}, _title(part))
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
    placed = {
        found.name: tuple(error for error in errors if f"{error.pointer}/".startswith(f"{found.pointer}/"))
        for found in shown
    }
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
    for found in blank.fields():
        if _is_chosen(blank, found):
            _put(spec, found.pointer.split("/")[1:], found.read(form))
    return spec


def _count_teachers(form: Mapping[str, Sequence[str]]) -> int:
    indices = {name.split("/")[2] for name in form if name.startswith("/teachers/")}
    return min(max(len(indices), 1), MAX_TEACHERS)


def _put(spec: dict[str, Any], path: list[str], value: Any) -> None:
    place: Any = spec
    for part in path[:-1]:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[path[-1]] = value
