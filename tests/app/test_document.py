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
from tests.app.test_authz import places
from tests.app.world import World

__all__ = ["places"]  # a fixture
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
        assert ("401" in operation["responses"]) == (operation.get("security") != []), name
        for status, response in operation["responses"].items():
            if status >= "400":
                example = response["content"][MEDIA_TYPE]["example"]
                assert Problem.model_validate(example).status == int(status)


def test_every_example_is_one_that_the_app_takes_and_answers(
    app: FastAPI,
    document: dict[str, Any],
    client: TestClient,
    places: dict[str, str],
    world: World,
) -> None:
    """Every operation on JSON, sent as its example has it; the answer has the fields of the example's."""
    client.headers.update(world.person("admin").headers)
    world.worker_online()
    client.post("/api/v1/teams", json=examples()["create_team"]["request"])  # it is named by an example
    arrival = client.post("/api/v1/uploads", headers={"Upload-Length": "9"}).json()["id"]
    places |= {"user_id": world.person("another").user.id, "worker_id": "test:cpu:0", "arrival_id": arrival}
    places["name"] = places.pop("name:path")
    wrong = []
    for name, operation in sorted(described(document), key=lambda one: one[0].startswith("DELETE")):
        if operation["operationId"] in ELSEWHERE or not is_json(operation) or asks_more(operation):
            continue
        method, path = name.split(" ")
        example = examples()[operation["operationId"]]
        answer = client.request(method, path.format(**places), json=example.get("request"))
        expected = example.get("response")
        same = not isinstance(expected, dict) or set(expected) <= set(answer.json())
        if answer.status_code != 409 and (answer.status_code >= 400 or not same):
            wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")
    assert not wrong, "\n".join(wrong)


ELSEWHERE = {  # what is sent there is of one user or one moment: their own tests send it
    "change_password",
    "get_spec",  # whatever was submitted
    "remove_team",
    "stream_events",
    "stream_jobs",
    "preview_folder",
    "end_session",
    "revoke_token",
    "get_readiness",  # 503 without a worker
}


def asks_more(operation: dict[str, Any]) -> bool:
    """Whether it cannot be asked without a parameter beside path and body."""
    return any(one.get("required") and one["in"] != "path" for one in operation.get("parameters", []))


def is_json(operation: dict[str, Any]) -> bool:
    """Whether bodies, where there are any, are JSON both ways."""
    bodies = [operation.get("requestBody", {}), *(operation["responses"].get(status, {}) for status in ("200", "201"))]
    return all(set(body.get("content", {})) <= {"application/json"} for body in bodies)


def test_the_document_is_served_to_those_who_are_logged_in(client: TestClient) -> None:
    assert client.get("/api/v1/openapi.json").json()["info"]["title"] == "FADRM Server"
