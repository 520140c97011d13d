"""Every error leaves as one kind of answer: application/problem+json (RFC 9457), with JSON pointers to what is to blame."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import compile_path

from app.errors import ServiceError, TooLarge, Unavailable, Unprocessable
from app.storage.bucket import BucketAway
from engine.errors import EngineError, ErrorReport
from engine.spec import JobSpec

DISK_FULL = ("disk is full", "No space left on device")  # as SQLite and PostgreSQL say it
log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"
TAGS = (
    "method",
    "source",
)  # fields that say which model of a union is meant: pydantic puts their values into locations
SEND_JSON = "Send one JSON object in UTF-8, with the header `Content-Type: application/json`."
SHA256 = r"^[0-9a-f]{64}$"
PLAINLY = {  # kind of error -> what the value should be
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "greater_than": "more than {gt}",
    "less_than": "less than {lt}",
}
IDS = {  # where ids of uploads stand -> where one finds them
    ("dataset", "id"): (
        "`fadrm upload X.zip` prints it, and so does `fadrm datasets list`; in the browser go to Data sets, "
        "then Distil this."
    ),
    ("teachers", "upload"): "`fadrm teachers upload X.safetensors` prints it, and so does `fadrm teachers sent`.",
}
SHOWN = 80  # characters of a wrong value that are repeated
TOLD = 50  # things that are wrong with one request which are told


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field("", description="JSON pointer into the body.")
    parameter: str = Field("", description="Or the name of a parameter of the address or a header.")
    code: str
    detail: str
    hint: str = ""


class Problem(BaseModel):
    """An error, as RFC 9457 has it, with a code for programs and a hint for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str = ""
    request_id: str = ""
    errors: list[FieldError] = []
    details: dict[str, Any] = {}


def install(app: FastAPI) -> None:
    """Let every error of this app be answered here."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(BucketAway, _bucket_error)
    app.add_exception_handler(OperationalError, _database_error)
    app.add_exception_handler(PoolTimeout, _database_error)


def answer(request: Request, error: ServiceError) -> Response:
    """What is sent for an error of ours."""
    problem = Problem(
        title=error.title,
        status=error.status,
        detail=error.detail,
        instance=request.url.path,
        code=error.code,
        hint=error.hint,
        request_id=getattr(request.state, "request_id", ""),
        errors=[_field_error(report) for report in error.errors],
        details=error.details,
    )
    return _rendered(request, problem, error.headers)


def _rendered(request: Request, problem: Problem, headers: dict[str, str] | None = None) -> Response:
    page = getattr(request.app.state, "error_page", None)
    if page is not None and not is_api(request.url.path) and "text/html" in request.headers.get("accept", ""):
        shown: Response = page(request, problem)
        shown.headers.update(headers or {})
        return shown
    return JSONResponse(problem.model_dump(mode="json"), problem.status, headers, MEDIA_TYPE)


def is_api(path: str) -> bool:
    """Whether programs are answered here, rather than people."""
    return path.startswith("/api/") or path == "/metrics"


def _field_error(report: ErrorReport) -> FieldError:
    parameter = str(report.details.get("parameter", ""))
    return FieldError(
        pointer=report.pointer, parameter=parameter, code=report.code, detail=report.message, hint=report.hint
    )


def _service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answer(request, error)


def _engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return answer(request, Unprocessable(error.report.message, hint=error.report.hint, errors=[error.report]))


def _database_error(request: Request, error: Exception) -> Response:
    log.error("database does not answer", extra={"error": repr(error)})
    if any(words in str(error) for words in DISK_FULL):
        hint = (
            "Nothing was stored. An administrator frees space (`fadrm storage` tells what can go); send it again then."
        )
        full = Unavailable("The disk that the database is on is full.", hint=hint, headers={"Retry-After": "60"})
        return answer(request, full)
    busy = Unavailable("The database does not answer.", hint="Try again shortly.", headers={"Retry-After": "2"})
    return answer(request, busy)


def _bucket_error(request: Request, error: Exception) -> Response:
    log.error("bucket away", extra={"error": str(error)})
    hint = "Try again shortly; an administrator sees more by `fadrm doctor`."
    away = Unavailable("The store's bucket does not answer as it should.", hint=hint, headers={"Retry-After": "10"})
    return answer(request, away)


def _unreadable(cause: BaseException | None) -> str:
    """What is wrong with a body that the framework could not parse; empty when that is not what happened."""
    match cause:
        case UnicodeDecodeError():
            return "it is not UTF-8"
        case RecursionError():
            return "it nests too deeply"
        case ValueError():
            return str(cause)
    return ""


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.BAD_REQUEST and (why := _unreadable(error.__cause__)):
        return answer(request, Unprocessable(f"The body cannot be read: {why}.", hint=SEND_JSON))
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return answer(request, TooLarge())
    phrase = HTTPStatus(error.status_code).phrase
    problem = Problem(
        title=phrase,
        status=error.status_code,
        detail=error.detail if error.detail != phrase else f"{phrase}: {request.method} {request.url.path}.",
        instance=request.url.path,
        code=phrase.lower().replace(" ", "_"),
        hint="The API's document names every address and method: see /docs." if is_api(request.url.path) else "",
        request_id=getattr(request.state, "request_id", ""),
    )
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    return _rendered(request, problem, headers)


def _methods(request: Request) -> set[str]:
    """That an address knows; the framework names those of the first route alone."""
    there = (one for one in iter_route_contexts(request.app.routes) if one.path and one.methods)
    path = request.url.path
    found = set[str]().union(*(one.methods or () for one in there if compile_path(one.path or "")[0].match(path)))
    return found | {"HEAD"} if "GET" in found else found  # as app.middleware.Head has it


def last_resort(request: Request, error: Exception) -> Response:
    """For an error on the way to a route or from it, which no handler saw: of one that nobody foresaw, an id that is also
    in the log is told, and nothing else."""
    if isinstance(error, OperationalError | PoolTimeout):
        return _database_error(request, error)
    request_id = getattr(request.state, "request_id", "")
    log.error("unforeseen error", exc_info=error, extra={"request_id": request_id, "path": request.url.path})
    hint = f"Tell the administrator this number: {request_id}."
    return answer(request, ServiceError("Something went wrong on the server.", hint=hint))


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # the framework reads as JSON only what says that it is
        sent = request.headers.get("content-type", "")
        told = f"as {sent[:SHOWN]}" if sent else "without saying what it is"
        return answer(request, Unprocessable(f"The body was sent {told}, not as JSON.", hint=SEND_JSON))
    return answer(request, invalid(error.errors(), error.body))


def invalid(errors: Sequence[Any], body: Any, prefix: str = "") -> Unprocessable:
    """Pydantic's findings as one error of ours. prefix: pointer of `body` in what the user sent."""
    causes = _causes(errors[: 2 * TOLD])
    found = [_report(error, body, prefix) for error in causes[:TOLD]]
    if len(found) == 1:
        return Unprocessable(found[0].message, hint=found[0].hint, errors=found)
    count = len(causes) if len(errors) <= 2 * TOLD else f"More than {TOLD}"
    return Unprocessable(f"{count} fields are wrong. First: {found[0].message}", errors=found)


def _causes(errors: Sequence[Any]) -> list[Any]:
    """Without what only follows from others: a list is too short because one of its items is wrong."""
    places = [tuple(error["loc"]) for error in errors]

    def follows(error: Any) -> bool:
        place = tuple(error["loc"])
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        return error["type"] == "too_short" and inside

    return [error for error in errors if not follows(error)]


def _report(error: Any, body: Any, prefix: str) -> ErrorReport:
    parts = list(error["loc"])
    if not prefix and parts and parts[0] in {"query", "path", "header", "cookie"}:
        name = str(parts[1] if len(parts) > 1 else parts[0])  # of a list, what follows is the place in it
        details = {"parameter": name}
        return ErrorReport(code=error["type"], message=_sentence(error, name), hint=_hint(error), details=details)
    inside = parts if prefix else parts[1:]
    where = [] if error["type"] == "json_invalid" else list(without_tags(inside, body))
    return ErrorReport(
        code=error["type"],
        message=_sentence(error, ".".join(map(str, where))),
        hint=_hint(error),
        pointer=prefix + "".join(f"/{_escaped(part)}" for part in where),
    )


def without_tags(parts: Sequence[str | int], body: Any) -> Iterator[str | int]:
    """A location as it is in the body: pydantic also names which model of a union it tried, by the value of its tag."""
    value = body
    for part in parts:
        fields = value if isinstance(value, dict) else {}
        if part not in fields and part in {fields.get(tag) for tag in TAGS if isinstance(fields.get(tag), str)}:
            continue
        yield part
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None


def _escaped(part: str | int) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _sentence(error: Any, name: str) -> str:
    """Names the field and its value."""
    kind, message = error["type"], str(error["msg"])
    if kind == "json_invalid":
        return f"The body is no valid JSON: {error.get('ctx', {}).get('error', message)}."
    if kind == "missing":
        return f"{name or 'The body'} is missing."
    if kind == "extra_forbidden":
        return f"There is no field {name}."
    if kind == "value_error":
        told = message.removeprefix("Value error, ")
        return f"{name}: {told}." if name else f"{told[:1].upper()}{told[1:]}."
    if kind == "model_attributes_type" and not name:
        return "The body is no JSON object."
    shown = repr(error.get("input"))
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    told = _wanted(error) or message[:1].lower() + message[1:]
    tag = error.get("ctx", {}).get("tag", "") if kind == "union_tag_invalid" else ""
    told = told.replace(tag, f"{tag[:SHOWN]}...") if len(tag) > SHOWN else told
    return f"{name or 'The body'} is {shown}, but {told.replace('input should', 'it should', 1)}."


def _wanted(error: Any) -> str:
    """What a value should be, in plainer words than pydantic's where it has such."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "string_pattern_mismatch" and context["pattern"] == SHA256:
        return "it should be the 64 hexadecimal digits of an upload's id"
    if kind in PLAINLY:
        return f"it should be {PLAINLY[kind].format(**context)}"
    return ""


def _hint(error: Any) -> str:
    """What to do about it, where that can be said."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return _instead_of(str(error["loc"][-1]))
    if kind == "union_tag_invalid":
        return f"Choose one of {context.get('expected_tags')}."
    if kind == "json_invalid" or tuple(error["loc"]) == ("body",):
        return SEND_JSON
    if kind == "union_tag_not_found":
        tag = str(context.get("discriminator", "")).strip("'")
        known = f": {', '.join(_kinds(tag))}" if _kinds(tag) else ""
        return f"Say which kind it is, by the field {tag} in it{known}."
    place = error["loc"]
    return next((hint for (part, last), hint in IDS.items() if part in place and place[-1] == last), "")


def _instead_of(name: str) -> str:
    """What to do about a field that is not known there."""
    near = difflib.get_close_matches(name[:SHOWN], _field_names(JobSpec), n=1, cutoff=0.7)
    if near == [name]:
        return f"A field {name} belongs to another part of the spec; the API's document shows which."
    return f"Did you mean {near[0]}?" if near else f"Leave {name} out; the API's document names every field."


@cache
def _kinds(tag: str) -> tuple[str, ...]:
    """What a field that says the kind may hold: of `method` every method, of `source` every source."""
    schema = JobSpec.model_json_schema()
    parts = [part for place in (schema, *schema["$defs"].values()) for part in place.get("properties", {}).values()]
    found = [part["discriminator"] for part in parts if "discriminator" in part]
    return tuple(kind for one in found if one["propertyName"] == tag for kind in one["mapping"])


@cache
def _field_names(model: type[BaseModel]) -> set[str]:
    """Every field's name in a model and in the models that it is made of."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", {})}
