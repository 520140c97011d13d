"""The OpenAPI document: whole, and true to what the routes answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from pydantic import TypeAdapter

from app.api.document import examples
from app.problems import MEDIA_TYPE, Problem
from tests.app.world import World

METHODS = ("get", "post", "patch", "delete")


def described(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield f"{method.upper()} {path}", operations[method]


@pytest.fixture
def document(app: FastAPI) -> dict[str, Any]:
    return app.openapi()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_the_document_is_whole(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1") and document["info"]["version"]
    for reference in references(document):
        found: Any = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    names = [operation["operationId"] for _, operation in described(document)]
    assert len(names) == len(set(names))


def test_every_operation_says_what_it_is_and_shows_an_example(document: dict[str, Any]) -> None:
    for name, operation in described(document):
        assert operation["summary"], name
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            for content in response.get("content", {}).values():
                assert content.get("example"), (name, status)
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content.get("example"), name


def test_examples_are_what_the_routes_take_and_answer(app: FastAPI, document: dict[str, Any]) -> None:
    names = {operation["operationId"] for _, operation in described(document)}
    assert set(examples()) == names
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if context.name is None or context.name not in names:
            continue
        example = examples()[context.name]
        model = getattr(route, "response_model", None)
        if model is not None:
            TypeAdapter(model).validate_python(example["response"])
        body = getattr(route, "body_field", None)
        if body is not None:
            TypeAdapter(body.field_info.annotation).validate_python(example["request"])


def test_errors_are_described_as_they_are_sent(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for name, operation in described(document):
        if "/api/" not in name:
            continue
        assert "401" in operation["responses"], name
        for status, response in operation["responses"].items():
            if status >= "400":
                example = response["content"][MEDIA_TYPE]["example"]
                assert Problem.model_validate(example).status == int(status)


def test_example_requests_can_be_sent(client: TestClient, world: World) -> None:
    for name, path in (
        ("plan_job", "/api/v1/jobs/plan"),
        ("create_job", "/api/v1/jobs"),
        ("plan_sweep", "/api/v1/sweeps/plan"),
        ("create_sweep", "/api/v1/sweeps"),
        ("create_token", "/api/v1/tokens"),
    ):
        answer = client.post(path, json=examples()[name]["request"])
        assert answer.status_code in {200, 201}, answer.text


def test_the_document_is_served_to_those_who_are_logged_in(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json()["info"]["title"] == "FADRM Server"
