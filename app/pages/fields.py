"""One field of the spec as one control: its label, help, bounds and choices, what was typed, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, Protocol

from engine.networks import NETWORKS

Kind = Literal["integer", "number", "boolean", "text", "choice", "choices", "numbers"]
Schema = Mapping[str, Any]

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


def title_of(value: Any) -> str:
    return TITLES.get(str(value), str(value).replace("_", " ").capitalize())


def _label(name: str) -> str:
    last = name.rpartition("/")[2]
    return LABELS.get(name) or WORDS.get(last) or last.replace("_", " ").capitalize()


def field_of(name: str, schema: Schema, value: Any) -> Field:
    """One property of an object as a control."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    inner = kinds[0] if kinds else schema
    choices = inner.get("enum") or inner.get("items", {}).get("enum") or ()
    return Field(
        name=name,
        kind=_kind(inner),
        label=_label(name),
        help=schema.get("description", ""),
        choices=tuple((str(choice), title_of(choice)) for choice in choices),
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
