"""What is sent to make a job or a sweep: from a dict, a file, or the name of a preset."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fadrm.errors import ClientError

DEEPEST = 20  # levels of a request that are searched for what is wrong; no spec has as many
Wanted = Mapping[str, Any] | str | Path | None


def job_body(
    wanted: Wanted = None,
    *,
    preset: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """A request for a job.

    wanted: a spec or a whole request ({"spec" or "preset", ...}) as a mapping, or the path of a YAML or JSON file that
    holds one. preset: the name of one, instead; overrides: what to change in it. Raises ClientError.
    """
    if (wanted is None) == (preset is None):
        raise ClientError("A job is made of a spec or of a preset.", "Give one of the two: a spec, a file, or preset=.")
    value = {"preset": preset} if wanted is None else _mapping(wanted)
    if "axes" in value:
        raise ClientError(f"{_shown(wanted)} has axes: it is a sweep.", "Submit it with `fadrm sweep submit`.")
    body = dict(value) if {"spec", "preset"} & value.keys() else {"spec": value}
    given = {"overrides": overrides, "name": name}
    return body | {key: value for key, value in given.items() if value is not None}


def sweep_body(wanted: Mapping[str, Any] | str | Path) -> dict[str, Any]:
    """A request for a sweep: `spec` or `preset`, and `axes`. Raises ClientError."""
    value = _mapping(wanted)
    missing = [] if {"spec", "preset"} & value.keys() else ["`spec` or `preset`"]
    missing += [] if "axes" in value else ["`axes`"]
    if missing:
        here = ", ".join(f"`{key}`" for key in list(value)[:5]) or "nothing"
        raise ClientError(
            f"{_shown(wanted)} is no sweep: {' and '.join(missing)} is missing; it has {here}.",
            "A sweep has `spec` (a job's fields) or `preset` (a name, with `overrides`), and `axes` (what varies).",
        )
    return dict(value)


def _mapping(wanted: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    value = _read(Path(wanted)) if isinstance(wanted, str | Path) else wanted
    if not isinstance(value, Mapping):
        raise ClientError(f"{_shown(wanted)} holds no spec.", "It should be a mapping of fields to values.")
    _check_json(value, wanted)
    return value


def _read(file: Path) -> Any:
    import yaml

    hint = "It should be a spec as YAML or JSON."
    try:
        text = file.read_text()
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise ClientError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise ClientError(f"{file} cannot be read: {error}", hint) from error


def _check_json(value: Any, wanted: Any) -> None:
    """Raises ClientError for what JSON cannot say: YAML has dates, sets, and numbers that are none."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        place = next(_odd_places(value), "")
        where = f" at {place}" if place else f": {error}"
        hint = "Write text and dates in quotes, and numbers as digits."
        raise ClientError(f"{_shown(wanted)} holds what a spec cannot hold{where}.", hint) from error


def _odd_places(value: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """Where values are that JSON does not have, as pointers with the value."""
    if isinstance(value, Mapping | list):
        inside = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, inner in inside if depth < DEEPEST else ():
            yield from _odd_places(inner, f"{place}/{key}", depth + 1)
    elif not isinstance(value, str | int | None) and not (isinstance(value, float) and math.isfinite(value)):
        yield f"{place} ({value})"


def _shown(wanted: Any) -> str:
    return str(wanted) if isinstance(wanted, str | Path) else "The request"
