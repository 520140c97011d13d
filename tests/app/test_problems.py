"""Errors over HTTP: one form, a pointer to the field, a sentence that names value and remedy; and nothing is stored."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.main import create_app
from app.models import Job
from app.problems import MEDIA_TYPE, Problem
from tests.app.world import World, spec_body

FADRM = {"method": "fadrm", "budgets": [2, 2]}
BAD_SPECS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown field": ({"iterations": 3}, "/spec/iterations", "no field"),
    "an unknown field, nearly right": ({"method": FADRM | {"budget": [1]}}, "/spec/method/budget", "budgets"),
    "negative iterations": ({"method": FADRM | {"budgets": [5, -1]}}, "/spec/method/budgets/1", "-1"),
    "a negative ipc": ({"ipc": -2}, "/spec/ipc", "-2"),
    "an unknown data set": ({"dataset": {"source": "imagenet"}}, "/spec/dataset", "'digits', 'folder'"),
    "no source": ({"dataset": {"resolution": 8}}, "/spec/dataset", "source"),
    "an unknown method": ({"method": {"method": "magic"}}, "/spec/method", "'fadrm', 'fadrm+'"),
    "an unknown network": ({"teachers": [{"network": "vit"}]}, "/spec/teachers/0/network", "resnet18"),
    "an ipc larger than the class": ({"ipc": 5000}, "/spec/ipc", "at most"),
    "sizes that do not fit budgets": ({"method": FADRM | {"sizes": [8]}}, "/spec/method", "one size per stage"),
    "a last size that is not the data set's": ({"method": FADRM | {"sizes": [8, 16]}}, "/spec/method/sizes", "8"),
    "a network too large for small images": (
        {"dataset": {"source": "digits", "resolution": 256}, "ipc": 1},
        "/spec/teachers/0/network",
        "convnet3_w32",
    ),
    "true for a number": ({"ipc": True}, "/spec/ipc", "'true'"),
    "true for one of several numbers": (
        {"method": FADRM | {"budgets": [True, 2]}},
        "/spec/method/budgets/0",
        "'true'",
    ),
    "a broken number of images": ({"ipc": 2.5}, "/spec/ipc", "a whole number"),
    "a word for a number": ({"seed": "seven"}, "/spec/seed", "'seven'"),
}


@pytest.mark.parametrize("name", BAD_SPECS)
@pytest.mark.parametrize("way", ["jobs", "jobs/plan"])
def test_a_bad_spec_is_refused_with_the_field_named(client: TestClient, world: World, name: str, way: str) -> None:
    changes, pointer, told = BAD_SPECS[name]
    answer = client.post(f"/api/v1/{way}", json={"spec": spec_body() | changes})
    problem = Problem.model_validate(answer.json())
    assert answer.status_code == 422 and answer.headers["content-type"] == MEDIA_TYPE
    blamed = {error.pointer: f"{error.detail} {error.hint}" for error in problem.errors}
    assert pointer in blamed and told in blamed[pointer], problem
    assert world.count(Job) == 0


@pytest.mark.parametrize("depth", [40, 500, 900])
@pytest.mark.parametrize("part", ["a list", "an object", "overrides"])
def test_a_spec_that_nests_deeply_is_refused_in_words(client: TestClient, part: str, depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if part == "an object" else [value]
    body = {"preset": "demo", "overrides": {"nested": value}} if part == "overrides" else {"spec": {"nested": value}}
    answer = client.post("/api/v1/jobs/plan", json=body)
    assert answer.status_code == 422 and "32 deep" in answer.json()["detail"], answer.text[:200]


@pytest.mark.parametrize("charset", ["unicode_escape", "undefined", "utf-16", "none-such", "latin-1"])
@pytest.mark.parametrize("path", ["/jobs/new", "/login", "/settings/teams", "/datasets"])
def test_a_form_in_another_charset_than_utf_8_is_refused(client: TestClient, path: str, charset: str) -> None:
    sent = b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\n\\ud800\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = client.post(path, content=sent, headers={"Content-Type": kind})
    assert answer.status_code == 422 and charset in answer.json()["detail"]
    answer = client.post(path, content=sent, headers={"Content-Type": kind.replace(charset, "UTF-8")})
    assert answer.status_code < 500 and "sent with the charset" not in answer.text


def test_a_whole_number_may_be_written_with_a_point(client: TestClient) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body(ipc=2.0)}).json()  # JSON has one kind of number
    assert client.get(job["urls"]["self"] + "/spec").json()["ipc"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"spec": spec_body(), "preset": "demo"}, ""),
        ({"preset": "no such"}, "/preset"),
        ({"preset": "demo", "overrides": {"ipc": -1}}, "/overrides/ipc"),
        ({"preset": "demo", "overrides": {"method": {"alpha": 7}}}, "/overrides/method/alpha"),
        ({"spec": spec_body(), "name": "a\u202eb"}, "/name"),
        ({"spec": spec_body(), "name": "x" * 81}, "/name"),
        ({"spec": spec_body(), "owner_id": "usr_somebody"}, "/owner_id"),
        ({"spec": spec_body(), "state": "succeeded"}, "/state"),
    ],
)
def test_a_bad_request_around_the_spec_too(client: TestClient, world: World, body: Any, pointer: str) -> None:
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == pointer, answer.text
    assert world.count(Job) == 0


def test_what_is_no_json_is_said_to_be_none(client: TestClient) -> None:
    answer = client.post("/api/v1/jobs", content=b"{nonsense", headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "no valid JSON" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b'{"name": "\xfc"}', "application/json", "it is not UTF-8"),
        (b"[" * 100_000, "application/json", "it nests too deeply"),
        (b'{"preset": ' + b"1" * 5000 + b"}", "application/json", "digits"),
        (b'{"preset": "demo"}', "text/plain", "sent as text/plain, not as JSON"),
        (b'{"preset": "demo"}', None, "without saying what it is"),
        (b"preset: demo", "application/yaml", "sent as application/yaml"),
        (b"[]", "application/json", "no JSON object"),
        (b"", "application/json", "missing"),
    ],
)
def test_a_body_that_cannot_be_read_is_answered_with_how_to_send_it(
    client: TestClient, content: bytes, kind: str | None, told: str
) -> None:
    answer = client.post("/api/v1/jobs", content=content, headers={"Content-Type": kind} if kind else {})
    problem = Problem.model_validate(answer.json())
    assert answer.status_code == 422 and told in problem.detail, problem
    assert "Content-Type: application/json" in problem.hint


def test_a_part_that_does_not_say_its_kind_is_told_the_kinds(client: TestClient) -> None:
    answer = client.post("/api/v1/jobs/plan", json={"spec": {"dataset": {"resolution": 8}, "ipc": 1, "method": {}}})
    hints = {error["pointer"]: error["hint"] for error in answer.json()["errors"]}
    assert hints["/spec/dataset"].startswith("Say which kind it is, by the field source in it: digits, folder")
    assert "rded" in hints["/spec/method"] and "fadrm+" in hints["/spec/method"]


def test_who_asks_in_a_way_that_an_address_does_not_know_is_told_all_that_it_does(client: TestClient) -> None:
    for path, methods in (
        ("/api/v1/jobs", "GET, HEAD, POST"),
        ("/api/v1/teams/x", "DELETE"),
        ("/jobs/new", "GET, HEAD, POST"),
    ):
        answer = client.options(path)
        assert answer.status_code == 405 and answer.headers["allow"] == methods


def test_a_wrong_parameter_is_named(client: TestClient) -> None:
    [error] = client.get("/api/v1/jobs?limit=1000").json()["errors"]
    assert error["parameter"] == "limit" and "1000" in error["detail"]


@pytest.mark.parametrize(
    ("address", "status", "parameter"),
    [
        ("/api/v1/jobs?q=a%00b", 422, "q"),
        ("/api/v1/stream?jobs=%00", 422, "jobs"),
        ("/jobs?q=%00", 422, "q"),
        ("/api/v1/jobs?q%00=1", 422, "q%00"),
        ("/api/v1/jobs/%00", 404, ""),
        ("/api/v1/jobs/x%00/artifacts/y", 404, ""),
        ("/jobs/%00", 404, ""),
    ],
)
def test_a_nul_in_an_address_is_refused_on_every_database(
    any_world: World, address: str, status: int, parameter: str
) -> None:
    person = any_world.person("owner")
    with TestClient(create_app(any_world.services, background=False), headers=person.headers) as client:
        answer = client.get(address)
    assert answer.status_code == status and "NUL" in answer.json()["detail"]
    assert [error["parameter"] for error in answer.json()["errors"]] == ([parameter] if parameter else [])


@pytest.fixture
def any_client(any_world: World) -> Iterator[TestClient]:
    """An administrator's, on every database."""
    headers = any_world.person("admin", "admin").headers
    with TestClient(create_app(any_world.services, background=False), headers=headers) as client:
        yield client


@pytest.mark.parametrize("address", ["jobs", "users", "teams", "uploads"])
def test_a_name_that_is_longer_as_it_is_kept_is_refused_on_every_database(any_client: TestClient, address: str) -> None:
    name = "\u0958" * 80  # two characters each in NFC
    metadata = f"title {base64.b64encode(name.encode()).decode()}"
    body = {"name": name} | ({"spec": spec_body()} if address == "jobs" else {})
    headers = {"Upload-Length": "1", "Upload-Metadata": metadata} if address == "uploads" else {}
    answer = any_client.post(f"/api/v1/{address}", json=body, headers=headers)
    told = answer.json()
    assert answer.status_code == 422 and "at most 80" in f"{told['detail']} {told['hint']}".lower(), told


def test_half_a_character_among_a_sweeps_values_is_refused(client: TestClient) -> None:
    body = b'{"preset": "demo", "axes": [{"name": "n", "path": "/teachers/0/network", "values": ["\\ud800"]}]}'
    answer = client.post("/api/v1/sweeps/plan", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and "whole characters" in answer.json()["detail"]


@pytest.mark.parametrize("part", ["name", "title"])
def test_a_title_on_an_axis_that_is_too_long_is_told_in_characters(client: TestClient, part: str) -> None:
    titles = {"name": "n", "title": "t"} | {part: "x" * 41}
    axis = {"name": titles["name"], "variants": [{"title": titles["title"], "patch": {"ipc": 1}}]}
    answer = client.post("/api/v1/sweeps/plan", json={"preset": "demo", "axes": [axis]})
    assert answer.status_code == 422 and "at most 40 characters" in answer.json()["detail"]


@pytest.mark.parametrize("says_so", [True, False])
def test_a_body_that_is_too_large_is_refused(client: TestClient, says_so: bool) -> None:
    body = [b" " * 2**19] * 3
    content = b"".join(body) if says_so else iter(body)
    answer = client.post("/api/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json()["code"] == "too_large"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/jobs/job_nobody", 404, "not_found"),
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("PUT", "/api/v1/jobs", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/tokens/tok_nobody", 404, "not_found"),
    ],
)
def test_every_error_has_one_form(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path, headers={"X-Request-ID": "mine-1"})
    problem = Problem.model_validate(answer.json())
    assert (answer.status_code, problem.status, problem.code) == (status, status, code)
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert problem.hint, "every error says what to do"
    assert problem.instance == path and problem.request_id == answer.headers["x-request-id"] == "mine-1"


def test_an_unforeseen_error_tells_its_number_and_nothing_else(app: FastAPI, client: TestClient) -> None:
    @app.get("/api/v1/broken")
    def broken() -> None:
        raise RuntimeError("the password is swordfish")

    answer = client.get("/api/v1/broken")
    assert answer.status_code == 500 and answer.json()["code"] == "internal_error"
    assert answer.headers["x-request-id"] in answer.json()["hint"]
    assert "swordfish" not in answer.text and "Traceback" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_request_id_that_could_harm_a_log_is_replaced(client: TestClient) -> None:
    answer = client.get("/api/v1/me", headers={"X-Request-ID": 'x" injected="1'})
    assert answer.headers["x-request-id"].isalnum()


def test_a_database_that_does_not_answer_is_no_error_of_ours(client: TestClient, world: World) -> None:
    database = world.services.database
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO gone")
    answer = client.get("/api/v1/jobs")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "2"


def test_people_get_a_page(client: TestClient) -> None:
    answer = client.get("/jobs/job_nobody", headers={"Accept": "text/html"})
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
