"""HEAD at every address: what GET answers, without the content."""

from __future__ import annotations

import time

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.app.test_stream import Live, live
from tests.app.world import Person, World, chain

__all__ = ["live"]  # a fixture
ITS_OWN = {"x-request-id"}  # headers of one request alone


@pytest.mark.parametrize("path", ["/healthz", "/jobs", "/jobs/new", "/jobs/none", "/api/v1/jobs", "/api/v1/jobs/none"])
def test_it_is_answered_as_get_is(client: TestClient, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code and got.content and not head.content
    assert set(head.headers.items()) ^ set(got.headers.items()) == {
        (name, answer.headers[name]) for answer in (got, head) for name in ITS_OWN
    }


def test_nobody_learns_by_it_what_they_may_not_get(client: TestClient, world: World, owner: Person) -> None:
    job = world.submit(owner, chain("hidden"))
    client.headers.update(world.person("other").headers)
    assert client.head(f"/api/v1/jobs/{job.id}").status_code == client.head("/api/v1/jobs/none").status_code == 404


def test_an_address_that_has_no_get_has_no_head(client: TestClient) -> None:
    answer = client.head("/logout")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_it_is_counted_as_what_it_is(client: TestClient, app: FastAPI) -> None:
    client.head("/api/v1/jobs")
    labels = {"method": "HEAD", "route": "list_jobs", "status": "200"}
    assert app.state.metrics.registry.get_sample_value("fadrm_request_seconds_count", labels) == 1


def test_a_server_tells_the_length_that_it_does_not_send(live: Live) -> None:
    with httpx.Client(base_url=live.url, headers=live.world.person("owner").headers) as client:
        for path in ("/jobs", "/api/v1/me"):  # on one connection: nothing of an answer stands before the next
            head, got = client.head(path), client.get(path)
            assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
            assert not head.content and got.status_code == 200


def test_a_stream_ends_with_its_head(live: Live) -> None:
    headers = live.world.person("owner").headers
    answer = httpx.head(f"{live.url}/api/v1/stream", headers=headers, timeout=5)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    deadline = time.monotonic() + 5
    while live.hub._watchers:
        assert time.monotonic() < deadline
        time.sleep(0.01)
