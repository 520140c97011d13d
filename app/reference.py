"""The reference pages of docs/, made from the code: `python -m app.reference docs/reference` (`make docs`).

A test holds the pages to what this writes: nothing in them is written by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from fastapi import FastAPI

from app import cli, errors
from app.settings import PREFIX, Settings
from engine import errors as engine_errors
from engine.spec import JobSpec


def pages(app: FastAPI) -> dict[str, str]:
    """File -> text of each page. app: the service, whose API is described."""
    return {
        "commands.md": _page("Commands", "`fadrm`, as `fadrm COMMAND --help` tells it too.", _commands()),
        "settings.md": _page("Settings", SETTINGS, _settings()),
        "spec.md": _page("The spec of a job", SPEC, _spec()),
        "api.md": _page("The REST API", API, _operations(app)),
        "errors.md": _page("Errors", ERRORS, _errors()),
    }


SETTINGS = (
    "Each is a variable of the environment, read once at start. `fadrm settings` lists them with their values and where "
    "these come from. Lists are JSON."
)
SPEC = (
    "What is sent under `spec`, as YAML or JSON. What is left out has its default; a field that there is not is refused. "
    "Under `method` and `dataset` the fields depend on the kind."
)
API = (
    "Under the address of the server; `/docs` there shows each with its schema and an example. Send "
    "`Authorization: Bearer TOKEN`. Creating requests take an `Idempotency-Key`. New fields and new values of states may "
    "come at any time."
)
ERRORS = (
    "Every error of the API is `application/problem+json`: `status`, `code`, a sentence in `detail`, what to do in `hint`, "
    "and in `errors` a JSON pointer to each field that is to blame. A job that failed has the same in its `error`."
)


def _page(title: str, about: str, lines: Iterator[str]) -> str:
    return (
        f"# {title}\n\n<!-- Made by `make docs` from the code: do not edit. -->\n\n{about}\n\n"
        + "\n".join(lines)
        + "\n"
    )


def _commands() -> Iterator[str]:
    codes = ", ".join(f"`{code}` {told}" for code, told in cli.EXIT_CODES.items())
    yield f"Exit codes: {codes}."
    for path, command in _leaves(typer.main.get_command(cli.app), "fadrm"):
        yield f"\n## {path}\n\n{(command.help or '').strip()}\n"
        context = command.context_class(command, info_name=path)
        yield f"```text\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```\n"
        rows = [row for param in command.get_params(context) if (row := _parameter(param))]
        if rows:
            yield "| | |\n|---|---|"
            yield from rows


def _leaves(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _leaves(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _parameter(param: Any) -> str:
    """A line of the table; empty for --help, which every command has."""
    if param.name == "help":
        return ""
    names = " ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    if param.param_type_name == "argument":
        names = f"`{(param.metavar or param.name).upper()}`"
    is_told = (
        isinstance(param.default, str | int | float) and not isinstance(param.default, bool) and param.default != ""
    )
    default = f" (default {param.default})" if is_told else ""
    return f"| {names} | {_cell(param.help or '')}{default} |"


def _settings() -> Iterator[str]:
    yield "| Variable | Default | Meaning |\n|---|---|---|"
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, Path):
            default = str(default).replace(str(Path.home()), "~")  # the pages are the same for everybody
        value = _told(getattr(default, "get_secret_value", lambda default=default: default)())
        yield f"| `{PREFIX}{name.upper()}` | {value} | {_cell(field.description or '')} |"


def _spec() -> Iterator[str]:
    schema = JobSpec.model_json_schema()
    parts: dict[str, Any] = schema["$defs"]
    yield from _table("The spec", schema, parts)
    for part in parts.values():
        if "properties" in part:
            yield from _table(_title(part), part, parts)


def _title(part: dict[str, Any]) -> str:
    """`method: fadrm`, where a field says the kind; else the name of the part."""
    kinds = [f"{name}: {field['const']}" for name, field in part["properties"].items() if "const" in field]
    return kinds[0] if kinds else str(part["title"])


def _table(title: str, part: dict[str, Any], parts: dict[str, Any]) -> Iterator[str]:
    yield f"\n## {title}\n\n{_prose(part.get('description', ''))}\n"
    yield "| Field | Values | Default | Meaning |\n|---|---|---|---|"
    for name, field in part["properties"].items():
        if "const" not in field:
            default = _told(field["default"]) if "default" in field else "must be given"
            yield f"| `{name}` | {_values(field, parts)} | {default} | {_cell(field.get('description', ''))} |"


def _values(field: dict[str, Any], parts: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if "$ref" in field:
        part = parts[field["$ref"].rpartition("/")[2]]
        return _values(part, parts) if "properties" not in part else f"{_title(part)}, below"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    for several in ("anyOf", "oneOf"):
        if several in field:
            found = [_values(one, parts) for one in field[several]]
            kinds = [one.removesuffix(", below").partition(": ")[2] for one in found if ": " in one]
            return f"one of {', '.join(kinds)}, below" if len(kinds) > 1 else " or ".join(found)
    if field.get("type") == "array":
        inner = field.get("items", (field.get("prefixItems") or [{}])[0])
        return f"list of {_values(inner, parts)}"
    kind = str(field.get("type", "anything")).replace("null", "nothing")
    names = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {field[key]}" for key, sign in names.items() if key in field]
    return " ".join([kind, ", ".join(bounds)]).strip()


def _operations(app: FastAPI) -> Iterator[str]:
    document = app.openapi()
    found: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            row = f"| `{method.upper()}` | `{path}` | {_cell(operation['summary'])} |"
            found.setdefault(operation.get("tags", ["health"])[0], []).append(row)
    for tag, rows in found.items():
        yield f"\n## {tag.capitalize()}\n\n| | | |\n|---|---|---|"
        yield from rows


def _errors() -> Iterator[str]:
    yield "## Of the API\n\n| Status | Code | Means |\n|---|---|---|"
    answers = [kind for kind in vars(errors).values() if _is_kind(kind, errors.ServiceError)]
    for kind in sorted(answers, key=lambda kind: (kind.status, kind.code)):
        yield f"| {kind.status} | `{kind.code}` | {_cell(_prose(kind.__doc__ or ''))} |"
    yield "\n## Of a job\n\n| Code | Means |\n|---|---|"
    for kind in vars(engine_errors).values():
        if _is_kind(kind, engine_errors.EngineError):
            yield f"| `{kind.code}` | {_cell(_prose(kind.__doc__ or ''))} |"


def _is_kind(kind: Any, family: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, family)


def _told(value: Any) -> str:
    """A default as it is written."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict) for one in value)):
        return "as below"
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"


def _prose(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def write(folder: Path) -> None:
    """Write every page."""
    from tempfile import TemporaryDirectory

    from app import services
    from app.main import create_app

    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as home, services.build(Settings(home=Path(home))) as built:
        for name, text in pages(create_app(built, background=False)).items():
            (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
