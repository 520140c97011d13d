"""One field of the spec as one control: its label, help, bounds and choices, what was typed, and what that means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, Protocol

from engine.methods import TITLES as METHODS
from engine.networks import NETWORKS

Kind = Literal["integer", "number", "boolean", "text", "choice", "choices", "numbers", "words", "part", "lines"]
Schema = Mapping[str, Any]
RATES = ("lr", "eta")  # of a line of rates, in order

# What a reader sees for names that only their authors would know; all others are made from the name.
LABELS = {
    "/dataset/id": "Upload",
    "/ipc": "Images per class (ipc)",
    "/teachers/0/network": "Teacher",
    "/teachers/0/epochs": "Epochs of the teacher",
    "/flip": "Mirror images in augmentation",
    "/nested": "Smaller downloads too (ipcs)",
    "/exports": "Further forms of the download",
    "/method/alpha": "Mixing weight α",
    "/method/budgets": "Iterations of each stage",
    "/method/sizes": "Resolution of each stage, px",
    "/method/lr": "Learning rate of the images",
    "/method/r_bn": "Weight of batch-norm distance",
    "/method/first_bn": "Factor of the first batch norm",
    "/method/betas": "Adam's betas",
    "/method/crop": "Random resized crop",
    "/method/jitter": "Largest roll, px",
    "/method/batch": "Classes optimised together",
    "/method/rounding": "Rounding to pixels",
    "/method/easiest_crop": "Smallest crop at first, share",
    "/method/class_share": "Share of class-wise statistics",
    "/method/flatness": "Weight of flatness",
    "/patches/factor": "Tiles a side",
    "/labels/top_k": "Largest logits kept (top k)",
    "/labels/pool": "Epochs whose labels are kept",
    "/labels/recipe_only": "No labels, but what makes them",
    "/labels/statistics": "Batch norm while labelling",
    "/labels/cutmix": "CutMix",
    "/evaluation/eta": "Smoothing of the learning rate η",
    "/evaluation/every": "Test every so many epochs",
    "/evaluation/runs": "Runs of each student",
    "/evaluation/rates": "Rates of single students",
    "/evaluation/valid_per_class": "Held back to choose an epoch by, per class",
    "/evaluation/full_data": "Train on all real images too",
    "/evaluation/continual": "Class-incremental learning too",
    "/evaluation/continual/steps": "Groups of classes",
    "/evaluation/continual/student": "Student that learns in groups",
    "/evaluation/quick": "Quick look",
    "/resources/ipcs_per_step": "Images per class of one step",
}
HELP = {
    "/evaluation/continual": "Classes come in groups, and a student learns them one group after another (figure 6).",
}
WORDS = {"lr": "Learning rate", "name": "Data set"}
TITLES = {
    "digits": "Digits",
    "folder": "Folder on the server",
    "upload": "Uploaded archive",
    "huggingface": "Hugging Face",
    "torchvision": "Torchvision",
    "uint8": "PyTorch, 8-bit pixels",
    "normalised": "PyTorch, normalised",
    "parquet": "Hugging Face parquet",
    "webdataset": "WebDataset",
    "fkd": "FKD label files",
    **METHODS,
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "imagenette": "ImageNette",
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
        return pointer_of(self.name)

    @property
    def id(self) -> str:
        return "f" + "".join("-" if sign in "/:+" else sign for sign in self.name)

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
        if isinstance(self.value, (list, tuple)) and self.kind == "words":
            return "\n".join(map(str, self.value))
        if isinstance(self.value, (list, tuple)):
            return ", ".join(map(_typed, self.value))
        if isinstance(self.value, Mapping):
            return "\n".join(_line(name, rates) for name, rates in self.value.items())
        return _typed(self.value)

    def carries(self, error: Problem) -> bool:
        """Whether an error is at this field or inside it; a part leaves to its fields what is theirs."""
        if self.kind == "part":
            return error.pointer == self.pointer
        return f"{error.pointer}/".startswith(f"{self.pointer}/")

    def read(self, form: Mapping[str, Sequence[str]]) -> Any:
        """The value that a posted form gives. Text that is no number stays text: the spec's own check names it."""
        given = form.get(self.name, ())
        match self.kind:
            case "boolean":
                return bool(given)
            case "part":
                return {} if given else None
            case "choices":
                return list(given)
            case _:
                return self._meant(given[-1].strip() if given else "")

    def _meant(self, text: str) -> Any:
        """The value that a text stands for."""
        if not text and self.nullable:
            return None
        if self.kind == "lines":
            return dict(_rates(line) for line in text.splitlines() if line.strip())
        if self.kind == "words":
            return [line.strip() for line in text.splitlines() if line.strip()]
        if self.kind == "numbers":
            return [_number(part) for part in text.replace(",", " ").split()]
        return _number(text) if self.kind in ("integer", "number") or self._numeric_choice else text

    @property
    def _numeric_choice(self) -> bool:
        return self.kind == "choice" and all(value.isdigit() for value, _ in self.choices if value)


def _typed(value: Any) -> str:
    if isinstance(value, float):
        short = f"{value:.10g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _line(name: str, rates: Any) -> str:
    """One student's rates as one types them: `resnet50 0.0005 2`."""
    values = [rates[part] for part in RATES if part in rates] if isinstance(rates, Mapping) else [rates]
    return " ".join([name, *map(_typed, values)])


def _rates(line: str) -> tuple[str, dict[str, Any]]:
    """What a line means; what it holds too many of is a field that the spec refuses by name."""
    name, *values = line.replace(",", " ").replace(":", " ").split()
    names = [*RATES, *(f"number {place + 3}" for place in range(len(RATES), len(values)))]
    return name, {part: _number(value) for part, value in zip(names, values, strict=False)}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if isfinite(value) else text
    return text


def pointer_of(name: str) -> str:
    """`/method/alpha` of the control `/method:fadrm/alpha`."""
    return "/".join(part.partition(":")[0] for part in name.split("/"))


def title_of(value: Any) -> str:
    return TITLES.get(str(value), str(value).replace("_", " ").capitalize())


def _label(name: str) -> str:
    last = name.rpartition("/")[2]
    return LABELS.get(pointer_of(name)) or WORDS.get(last) or last.replace("_", " ").capitalize()


def field_of(name: str, schema: Schema, value: Any) -> Field:
    """One property of an object as a control."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    inner = kinds[0] if kinds else schema
    offered = inner.get("enum") or inner.get("items", {}).get("enum") or ()
    choices = tuple((str(choice), title_of(choice)) for choice in offered)
    return Field(
        name=name,
        kind=_kind(inner),
        label=_label(name),
        help=schema.get("description", "") or HELP.get(pointer_of(name), ""),
        choices=(("", "by default"), *choices) if kinds and "enum" in inner else choices,
        nullable=bool(kinds),
        minimum=inner.get("minimum", inner.get("exclusiveMinimum")),
        maximum=inner.get("maximum", inner.get("exclusiveMaximum")),
        value=value,
    )


def _kind(schema: Schema) -> Kind:
    if schema.get("type") == "array":
        items = schema.get("items", {})
        return "choices" if "enum" in items else "words" if items.get("type") == "string" else "numbers"
    if "enum" in schema:
        return "choice"
    if "$ref" in schema:
        return "part"
    if "additionalProperties" in schema:
        return "lines"
    kinds: dict[str, Kind] = {"integer": "integer", "number": "number", "boolean": "boolean"}
    return kinds.get(schema.get("type", ""), "text")
