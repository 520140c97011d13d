"""The words that specs are written in: what a part of a spec is, and the kinds of values that several parts use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticKnownError

from engine.networks import NETWORKS

MAX_RESOLUTION = 512
DEEPEST = 32  # how many lists and objects lie in one another, in what people send: a spec has six


def shallow(value: Any) -> Any:
    """Raises ValueError for what nests too deeply to be walked through by functions that call themselves."""
    level = [value]
    for _ in range(DEEPEST):
        level = [part for one in level for part in _inside(one)]
        if not level:
            return value
    raise ValueError(f"it should not nest more than {DEEPEST} deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


class Part(BaseModel):
    """A part of a spec: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _true_is_no_number(cls, given: Any) -> Any:
        """Pydantic takes `true` for 1, and who writes it means something else: as a word it is refused at its place."""
        if not isinstance(given, dict):
            return given
        shallow(given)
        numbers = {name for name, field in cls.model_fields.items() if _holds_numbers(field.annotation)}
        return {name: _spelled(value) if name in numbers else value for name, value in given.items()}


def _holds_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(_holds_numbers, get_args(annotation)))


def _spelled(value: Any) -> Any:
    """A value with `true` and `false` as words."""
    if isinstance(value, list | tuple):
        return [_spelled(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else value


def _known_network(name: str) -> str:
    if name not in NETWORKS:
        raise ValueError(f"{name!r} is no network this engine knows: choose one of {', '.join(sorted(NETWORKS))}")
    return name


NetworkName = Annotated[str, AfterValidator(_known_network), Field(json_schema_extra={"enum": sorted(NETWORKS)})]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Resolution = Annotated[int, Field(ge=8, le=MAX_RESOLUTION)]
Iterations = Annotated[int, Field(ge=1, le=100_000)]


def _at_least_one(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `min_length=1` says, but silent when an entry is wrong: pydantic counts the right ones only."""
    if not values:
        raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
    return values


NotEmpty = AfterValidator(_at_least_one)
MIN_ITEMS: dict[str, Any] = {"minItems": 1}  # the same for the JSON schema


def _unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names something twice: leave one of each")
    return values


Unique = AfterValidator(_unique)
