"""Pause, resume, retry and change over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.world import Person, World, chain


@pytest.fixture
def url(world: World, owner: Person) -> str:
    """A job of two steps, of which the first is done."""
    job = world.submit(owner, chain("a", 2))
    lease = world.claim()
    assert lease is not None
    world.perform(lease)
    return f"/api/v1/jobs/{job.id}"


def post(client: TestClient, url: str, action: str, status: int = 200) -> dict[str, Any]:
    answer = client.post(f"{url}/{action}")
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


def told(client: TestClient, url: str) -> list[str]:
    """What the log says that people did."""
    lines = client.get(f"{url}/log").json()["data"]
    return [line["message"] for line in lines if line["message"].startswith(("owner ", "admin "))]


def test_a_job_that_is_paused_twice_is_paused_once_and_goes_on_when_resumed(
    client: TestClient, world: World, url: str
) -> None:
    first, again = post(client, url, "pause"), post(client, url, "pause")
    assert first["state"] == "paused" and first["paused_by"] == "owner" and again["version"] == first["version"]
    assert world.claim() is None
    assert post(client, url, "resume")["state"] == "running" and post(client, url, "resume")["paused_by"] is None
    assert world.work() == 1 and client.get(url).json()["state"] == "succeeded"
    assert told(client, url) == ["owner paused the job.", "owner let the job go on."]


def test_a_failed_job_is_tried_again_from_its_failed_step(client: TestClient, world: World, url: str) -> None:
    lease = world.claim()
    assert lease is not None
    world.fail(lease)
    job = post(client, url, "retry")
    assert [step["state"] for step in job["steps"]] == ["succeeded", "queued"] and job["error"] is None
    assert post(client, url, "retry")["version"] == job["version"], "it is under way already"
    assert world.work() == 1 and client.get(url).json()["state"] == "succeeded"
    assert told(client, url) == ["owner had 1 step tried again."]


def test_a_cancelled_job_is_tried_again(client: TestClient, world: World, url: str) -> None:
    post(client, url, "cancel")
    assert post(client, url, "retry")["cancel_requested"] is False
    assert world.work() == 1 and client.get(url).json()["state"] == "succeeded"


def test_a_stream_goes_past_an_end_that_was_not_the_last(client: TestClient, world: World, url: str) -> None:
    post(client, url, "cancel")
    post(client, url, "retry")
    world.work()
    text = client.get(f"{url}/events/stream?after_seq=0").text
    assert text.count("event: end") == 1 and '"kind":"retry"' in text and '"state":"succeeded"' in text


@pytest.mark.parametrize("action", ["pause", "resume", "retry"])
def test_a_job_that_has_succeeded_is_left_alone(client: TestClient, world: World, url: str, action: str) -> None:
    world.work()
    problem = post(client, url, action, 409)
    assert "has succeeded already" in problem["detail"] and problem["hint"]


def test_a_paused_job_is_resumed_and_not_tried_again(client: TestClient, url: str) -> None:
    post(client, url, "pause")
    assert post(client, url, "retry", 409)["hint"] == "Resume it."
    assert post(client, url, "cancel")["state"] == "cancelled"


def test_trying_again_counts_as_an_unfinished_job(client: TestClient, world: World, owner: Person, url: str) -> None:
    post(client, url, "cancel")
    for index in range(world.services.settings.max_queued_per_user):
        world.submit(owner, chain(f"more-{index}"))
    assert "unfinished jobs" in post(client, url, "retry", 429)["detail"]


def test_a_job_is_renamed_and_ranked(client: TestClient, world: World, url: str) -> None:
    etag = client.get(url).headers["etag"]
    job = client.patch(url, json={"name": " Ångström ", "priority": -2}).json()
    assert job["name"] == "Ångström" and job["priority"] == -2
    assert client.patch(url, json={}).json()["version"] == job["version"]
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200
    assert told(client, url) == ["owner changed the name to Ångström and priority to -2."]
    world.work()
    version = client.get(url).json()["version"]
    renamed = client.patch(url, json={"name": "After the end"}).json()
    assert renamed["name"] == "After the end" and renamed["version"] == version, "nothing is told after the end"
    assert client.patch(url, json={"priority": 0}).status_code == 409


def test_only_administrators_raise_a_priority_above_zero(client: TestClient, world: World, url: str) -> None:
    refused = client.patch(url, json={"priority": 1})
    assert refused.status_code == 403 and refused.json()["errors"][0]["pointer"] == "/priority"
    assert client.patch(url, json={"priority": 2}, headers=world.person("admin").headers).json()["priority"] == 2
    assert client.patch(url, json={"priority": 1}).json()["priority"] == 1, "who lowers needs nobody"
    wrong = client.patch(url, json={"priority": 3})
    assert wrong.status_code == 422 and wrong.json()["errors"][0]["pointer"] == "/priority"
