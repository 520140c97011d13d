"""Figures for Prometheus, and log lines: true, whole, and without secrets."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app import auth, logs
from app.children import Child
from app.logs import Facts, readable
from app.metrics import Metrics
from tests.app.world import Person, World, chain


def told(client: TestClient, world: World) -> dict[tuple[str, ...], float]:
    """(name, label values ...) -> value of everything at /metrics."""
    answer = client.get("/metrics", headers=world.person("admin").headers)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_the_queue_its_waiting_and_what_steps_took_are_told(client: TestClient, world: World, owner: Person) -> None:
    world.worker_online()
    world.submit(owner, chain("done", 2))
    world.work()
    world.submit(owner, chain("waits", 3))
    found = told(client, world)
    assert found["fadrm_queue_depth",] == 1 and found["fadrm_queue_oldest_seconds",] >= 0
    assert found["fadrm_steps", "recover", "queued"] == 1
    assert found["fadrm_jobs", "succeeded"] == found["fadrm_jobs", "queued"] == 1
    assert found["fadrm_step_seconds_count", "package"] == 1 and found["fadrm_step_seconds_sum", "package"] == 1.5
    assert found["fadrm_step_seconds_bucket", "package", "1.0"] == 0
    assert found["fadrm_step_seconds_bucket", "package", "5.0"] == 1
    assert found["fadrm_job_waiting_seconds_count",] == 1
    assert found["fadrm_attempts_total", "succeeded"] == 2 and found["fadrm_attempts_total", "lost"] == 0
    assert found["fadrm_worker_online", "test:cpu:0"] == 1


def test_both_databases_answer(any_world: World) -> None:
    any_world.submit(any_world.person("ann"), chain("a", 2))
    any_world.work()
    assert b"fadrm_job_waiting_seconds_count 1.0" in generate_latest(Metrics(any_world.services).registry)


def test_answers_are_counted_by_route_and_status(client: TestClient, world: World) -> None:
    client.get("/api/v1/jobs")
    client.get("/api/v1/jobs/none")
    found = told(client, world)
    assert found["fadrm_request_seconds_count", "GET", "list_jobs", "200"] == 1
    assert found["fadrm_request_seconds_count", "GET", "get_job", "404"] == 1


def test_figures_are_for_administrators(client: TestClient, anonymous: TestClient) -> None:
    assert client.get("/metrics").status_code == 403
    client.headers.pop("authorization")
    refused = anonymous.get("/metrics")
    assert refused.status_code == 401 and refused.headers["content-type"] == "application/problem+json"


def test_a_scraper_needs_no_more_than_a_token_of_an_administrator_that_may_read(
    anonymous: TestClient, world: World, owner: Person
) -> None:
    for person, status in ((world.person("admin"), 200), (owner, 403)):
        with world.services.database.write() as session:
            _, token = auth.api_token(session, person.user, "scraper", scopes=("read",))
        assert anonymous.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == status


def test_every_answer_is_a_line_with_its_request_and_no_query(
    client: TestClient, owner: Person, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "app.metrics"):
        client.get("/api/v1/jobs?q=private", headers={"X-Request-ID": "abc123"})
    [record] = [one for one in caplog.records if one.message == "answered"]
    facts = vars(record)
    assert (facts["path"], facts["status"], facts["user"]) == ("/api/v1/jobs", 200, owner.user.id)


def line(**facts: object) -> dict[str, object]:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "login", **facts})
    text = Facts().format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def test_a_line_is_one_object_with_what_is_being_done() -> None:
    with logs.about(request="abc", job="job_1"), logs.about(step=7):
        found = line(user="a\nb", job_id="job_2")
    assert found["user"] == "a\nb" and (found["request"], found["job"], found["step"]) == ("abc", "job_2", 7)
    assert found["message"] == "login" and found["level"] == "INFO"
    assert "request" not in line()


def test_no_secret_is_logged() -> None:
    token = "fadrm_" + "x" * 43
    found = line(
        url="redis://u:pass@host/0",
        said=f"Bearer {token}",
        Authorization="Basic abc",
        cookie="session=abc",
        link="/login?token=abc.def",
    )
    text = json.dumps(found)
    for secret in ("pass@", "xxxx", "Basic", "session=abc", "abc.def"):
        assert secret not in text


def test_an_error_keeps_its_trace_in_its_line_and_people_read_it_as_lines(tmp_path: Path) -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        record = logging.makeLogRecord(
            {"msg": "broken", "levelname": "ERROR", "exc_info": (ValueError, error, error.__traceback__)}
        )
    text = Facts().format(record)
    (tmp_path / "api.log").write_text(f"Traceback of something else\n{text}\n")
    child = Child(name="api", command=(), environment={}, log=tmp_path / "api.log")
    words = child.last_words()
    assert words.startswith("Traceback of something else\n") and "ERROR broken" in words
    assert "\nValueError: wrong" in words
    assert readable("[]") == "[]" and readable("not json") == "not json"
