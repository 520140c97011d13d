"""Requests of every kind, made from the OpenAPI document: nothing breaks the server, and it answers as the document says.

FADRM_SCHEMA_EXAMPLES=200 sends so many to every operation.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.errors import FailureGroup
from schemathesis.specs.openapi.checks import status_code_conformance

from tests.app.world import World

EXAMPLES = int(os.environ.get("FADRM_SCHEMA_EXAMPLES", "3"))
STREAMS = {"stream_events", "stream_jobs"}  # they do not end
JSON = "application/json"
MAY_BE_UNREADY = {"/readyz"}  # it answers with 503 where something is missing
CHECKS = [not_a_server_error, status_code_conformance]


def operations(app: FastAPI) -> Iterator[Any]:
    """Every operation of the document that ends, and that takes JSON or nothing."""
    for result in schemathesis.openapi.from_dict(app.openapi()).get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr] # the document is whole: test_document.py
        told = operation.definition.raw
        is_binary = JSON not in told.get("requestBody", {}).get(
            "content", {JSON: None}
        )  # archives have tests of their own
        if told["operationId"] not in STREAMS and not is_binary:
            yield operation


@pytest.mark.parametrize("who", ["nobody", "member", "admin"])
def test_whatever_is_sent_is_answered_as_the_document_says(
    app: FastAPI, anonymous: TestClient, world: World, who: str
) -> None:
    headers = {} if who == "nobody" else world.person(who).headers
    wrong: dict[str, set[str]] = defaultdict(set)
    for operation in operations(app):
        try_out(operation, anonymous, headers, wrong)
    assert not wrong, "\n".join(f"{name}: {said}" for name, found in wrong.items() for said in sorted(found))


def try_out(operation: Any, client: TestClient, headers: dict[str, str], wrong: dict[str, set[str]]) -> None:
    """Send some requests to one operation, and note what was not as it should be."""

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.explicit, Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
    def send(case: Any) -> None:
        response = client.request(**transported(case, headers))
        for failure in failures(case, response):
            wrong[f"{operation.method.upper()} {operation.path}"].add(f"{response.status_code} {failure}")

    send()


def transported(case: Any, headers: dict[str, str]) -> dict[str, Any]:
    """A request as the client sends it."""
    words: dict[str, Any] = case.as_transport_kwargs(base_url="http://testserver")
    words.pop("cookies", None)  # of sessions there are tests enough
    words["headers"] = {
        name: value for name, value in (words.get("headers") or {}).items() if name not in headers
    } | headers
    if isinstance(words.get("data"), bytes | str):
        words["content"] = words.pop("data")
    return {name: value for name, value in words.items() if value is not None}


def failures(case: Any, response: Any) -> list[str]:
    """What is wrong with an answer."""
    checks = CHECKS if case.operation.path not in MAY_BE_UNREADY else [status_code_conformance]
    try:
        case.validate_response(response, checks=checks)
    except FailureGroup as group:
        return [f"{type(failure).__name__} {response.text[:200]}" for failure in group.exceptions]
    return []
