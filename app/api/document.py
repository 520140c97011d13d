"""The OpenAPI document: what FastAPI knows, with examples, the one form of errors, and the two ways to log in."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.middleware import COOKIE
from app.problems import MEDIA_TYPE, Problem

DESCRIPTION = (
    "Distils image data sets with FADRM. Send `Authorization: Bearer <token>`. Errors are `application/problem+json`, "
    "with JSON pointers to the fields that are to blame. New fields and new values of states may come at any time."
)
EXAMPLES = Path(__file__).with_name("examples.json")
METHODS = ("get", "post", "delete", "put", "patch")
PROBLEM = {"$ref": "#/components/schemas/Problem"}
OPEN = frozenset({"get_health", "get_readiness"})
SIGNED = frozenset({"follow_link"})  # what it hands out is said, and signed, by its address
CONTROLS = frozenset(
    {"cancel_job", "pause_job", "resume_job", "retry_job", "change_job", "cancel_sweep"}
    | {"delete_job", "restore_job", "delete_sweep", "restore_sweep", "retry_sweep"}
)
WRITING = CONTROLS | {"create_job", "rerun_job", "create_sweep", "create_upload", "delete_upload", "change_sweep"}
WRITING |= {"create_weights", "delete_weights"}
ARRIVING = frozenset({"create_arrival", "append_to_arrival", "finish_arrival", "cancel_arrival"})
SENDING = frozenset({"create_upload", "create_weights", "create_arrival", "append_to_arrival"})
ADMINISTERING = frozenset({"clean_storage", "drain_worker", "resume_worker"})
PEOPLE = frozenset({"list_users", "create_user", "get_user", "change_user", "invite_user"})
PEOPLE |= {"list_teams", "create_team", "remove_team", "list_audit_events"}
PEOPLE |= {"make_link", "follow_link"}
PEOPLE |= {"create_token", "revoke_token", "end_session", "change_password", "change_upload", "change_weights"}
CODES = {
    401: ("unauthenticated", "Log in first", "This needs a login or a token."),
    403: ("forbidden", "Not allowed", "This job is another user's."),
    404: ("not_found", "Not found", "There is no job job_0199."),
    409: ("conflict", "Not possible now", "job_0199 has succeeded already."),
    410: ("gone", "No longer here", "The bytes of fadrm-digits-ipc10.zip are no longer those that were written."),
    416: ("no_such_range", "Past the end of the file", "The file has 1,048,576 bytes."),
    413: ("too_large", "Too much was sent", "The archive is larger than 4,294,967,296 bytes."),
    412: ("unknown_version", "Another version is spoken here", "This server speaks tus 1.0.0, and not 2.0.0."),
    460: ("bad_checksum", "Damaged on the way", "The piece is not what its checksum says."),
    503: ("unavailable", "Try again shortly", "The server's disk is full."),
    422: (
        "invalid",
        "The request cannot be carried out",
        "spec.ipc is -1, but it should be greater than or equal to 1.",
    ),
    429: ("too_many", "Limit reached", "You have 50 unfinished jobs, and the limit is 50."),
    507: (
        "no_room",
        "No room",
        "No job is taken now: the store’s disk has 0.4 GB free, and 1.1 GB are kept in reserve.",
    ),
}


@cache
def examples() -> dict[str, Any]:
    """Operation -> {"request": body, "response": body}."""
    loaded: dict[str, Any] = json.loads(EXAMPLES.read_text())
    return loaded


def install(app: FastAPI) -> None:
    """Let the app's document be this one."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign] # FastAPI's documented way


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = made["components"]["schemas"]
    own = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= own.pop("$defs", {}) | {"Problem": own}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    made["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
    }
    made["security"] = [{"token": []}, {"session": []}]
    for operations in made["paths"].values():
        for method in METHODS:
            if method in operations:
                _complete(operations[method])
    return made


def _complete(operation: dict[str, Any]) -> None:
    """One operation: what can go wrong, and an example of what goes well."""
    name = operation["operationId"]
    if name in OPEN | SIGNED:
        operation["security"] = []
    for status in _problems(operation):
        operation["responses"][str(status)] = _problem(status)
    example = examples().get(name, {})
    if "request" in example:
        operation["requestBody"]["content"]["application/json"]["example"] = example["request"]
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            for content in response.get("content", {}).values():
                content["example"] = example.get("response")


def _problems(operation: dict[str, Any]) -> list[int]:
    name, where = operation["operationId"], {parameter["in"] for parameter in operation.get("parameters", [])}
    found = [] if name in OPEN | SIGNED else [401]
    if name in WRITING | ARRIVING | PEOPLE | ADMINISTERING:
        found.append(403)
    if "path" in where:
        found.append(404)
    if name in CONTROLS | {"delete_upload", "delete_weights", "append_to_arrival", "finish_arrival"}:
        found.append(409)
    if name == "change_job":
        found.append(412)
    if name in {"get_artifact", "follow_link"}:
        found.append(410)
    if name in {"get_artifact", "follow_link", "get_preview"}:
        found.append(416)
    if name in ARRIVING | {"list_arrivals", "get_arrival"}:
        found.append(412)
    if name in SENDING:
        found.append(413)
    if name == "append_to_arrival":
        found.append(460)
    if name in SENDING | {"finish_arrival"}:
        found.append(503)
    if where or "requestBody" in operation:
        found.append(422)
    if name in {"create_job", "rerun_job", "create_sweep"}:
        found.append(507)
    if name not in OPEN:
        found.append(429)
    return found


def _problem(status: int) -> dict[str, Any]:
    code, title, detail = CODES[status]
    errors = [{"pointer": "/spec/ipc", "code": "greater_than_equal", "detail": detail}] if status == 422 else []
    example = Problem.model_validate(
        {"title": title, "status": status, "detail": detail, "instance": "/api/v1/jobs", "code": code, "errors": errors}
    )
    return {
        "description": title,
        "content": {MEDIA_TYPE: {"schema": PROBLEM, "example": example.model_dump(mode="json")}},
    }
