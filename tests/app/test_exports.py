"""A finished job's download in another form: written once, by a job of its own, and then a file of the first job like any."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.models import Job
from engine.plan import StepKind
from tests.app.test_outcome_api import finished
from tests.app.test_visibility import team
from tests.app.world import World, spec_body

__all__ = ["finished"]  # a fixture


def asked(client: TestClient, job: dict[str, Any], **wanted: Any) -> Any:
    return client.post(f"/api/v1/jobs/{job['id']}/exports", json={"form": "parquet"} | wanted)


def files(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/v1/jobs/{job['id']}/artifacts").json()
    return found


def test_a_form_is_written_and_is_then_a_file_of_the_job(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:
    answer = asked(client, finished)
    assert answer.status_code == 202 and answer.json()["state"] == "building"
    writer = answer.json()["job"]
    assert answer.headers["location"] == f"/api/v1/jobs/{writer}" and writer != finished["id"]
    assert [one["job"] for one in files(client, finished)["building"]] == [writer]
    world.work()
    found = files(client, finished)
    assert found["building"] == [] and found["ready"]
    [file] = [one for one in found["data"] if one["form"] == "parquet"]
    assert file["ipc"] == 1 and client.get(file["url"]).content == b"exported"
    assert client.get(finished["urls"]["self"]).json()["state"] == "succeeded"


def test_only_the_form_is_work_and_the_rest_is_found(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:

    writer = asked(client, finished).json()["job"]
    kinds = {step.kind for step in world.steps(writer)}
    assert kinds == {StepKind.PREPARE, StepKind.RECOVER, StepKind.RELABEL, StepKind.EXPORT}
    whole = {step.kind for step in world.steps(writer) if world.services.store.is_whole(step.key)}
    assert whole == kinds - {StepKind.EXPORT}


def test_asked_twice_it_is_written_once(client: TestClient, world: World, finished: dict[str, Any]) -> None:
    first, again = asked(client, finished).json(), asked(client, finished).json()
    assert again == first and world.count(Job) == 2
    world.work()
    ready = asked(client, finished)
    assert ready.status_code == 200 and ready.json()["state"] == "ready" and world.count(Job) == 2
    assert ready.headers["location"] == ready.json()["artifact"]["url"]


def test_a_form_that_failed_leaves_the_job_as_it_was_and_can_be_asked_for_again(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:
    writer = asked(client, finished).json()["job"]
    while (lease := world.claim()) is not None:
        world.fail(lease) if lease.step.kind == StepKind.EXPORT else world.finish(lease, cached=True)
    assert world.job(writer).state == "failed" and world.job(finished["id"]).state == "succeeded"
    assert files(client, finished)["building"] == []
    assert asked(client, finished).json()["job"] not in {writer, None}


def test_nested_downloads_have_forms_too(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body(ipc=2, nested=[1])}).json()
    world.work()
    assert [asked(client, job, ipc=ipc).json()["ipc"] for ipc in (None, 2, 1)] == [2, 2, 1]
    world.work()
    assert [file["ipc"] for file in files(client, job)["data"] if file["form"] == "parquet"] == [2, 1]


@pytest.mark.parametrize(
    ("wanted", "pointer", "words"),
    [
        ({"ipc": 7}, "/ipc", "It has: 1."),
        ({"form": "zip"}, "/form", "parquet"),
        ({"form": None}, "/form", ""),
    ],
)
def test_what_there_is_not_is_refused_by_field(
    client: TestClient, finished: dict[str, Any], wanted: dict[str, Any], pointer: str, words: str
) -> None:
    answer = asked(client, finished, **wanted)
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == pointer and words in f"{error['detail']} {error['hint']}"


def test_label_files_need_labels(client: TestClient, world: World) -> None:
    spec = spec_body()
    spec["labels"]["recipe_only"] = True
    job = client.post("/api/v1/jobs", json={"spec": spec}).json()
    world.work()
    answer = asked(client, job, form="fkd")
    assert answer.status_code == 422 and "recipe_only" in answer.json()["detail"]


def test_a_job_without_a_download_has_no_forms(client: TestClient) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    answer = asked(client, job)
    assert answer.status_code == 409 and "exports" in answer.json()["hint"]


def test_nothing_is_computed_anew_for_a_form(client: TestClient, world: World, finished: dict[str, Any]) -> None:
    for step in world.steps(finished["id"]):
        if step.kind == StepKind.RECOVER:
            world.services.store.remove(step.key)
    answer = asked(client, finished)
    assert answer.status_code == 409 and "no longer in the store" in answer.json()["detail"]


def test_the_page_offers_each_form_until_it_is_asked_for(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:
    page = f"/jobs/{finished['id']}"
    assert 'value="parquet 1"' in client.get(page).text
    answer = client.post(f"{page}/exports", data={"form": "parquet 1"})
    assert answer.status_code == 303 and answer.headers["location"] == f"{page}#download"
    shown = client.get(page).text
    assert 'value="parquet 1"' not in shown and "is being written" in shown
    world.work()
    assert "/artifacts/parquet-1" in client.get(page).text


def test_a_form_of_a_private_job_is_as_private(client: TestClient, world: World, finished: dict[str, Any]) -> None:
    mate = world.person("mate")
    team(world, "vision", world.person("owner"), mate)
    assert finished["visibility"] == "private"
    writer = f"/api/v1/jobs/{asked(client, finished).json()['job']}"
    assert client.get(writer).json()["visibility"] == "private"
    assert client.get(writer, headers=mate.headers).status_code == 404


def test_whoever_does_not_see_the_job_that_writes_a_form_gets_one_of_their_own(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:
    other = world.person("other")
    same = client.post(f"{finished['urls']['self']}/rerun", headers=other.headers)
    assert same.status_code == 404
    client.patch(finished["urls"]["self"], json={"visibility": "all"})
    hidden = asked(client, finished).json()["job"]
    client.patch(f"/api/v1/jobs/{hidden}", json={"visibility": "private"})
    seen = client.get(f"/api/v1/jobs/{finished['id']}/artifacts", headers=other.headers).json()
    assert seen["building"] == []
    answer = client.post(f"{finished['urls']['self']}/exports", json={"form": "parquet"}, headers=other.headers)
    own = answer.json()["job"]
    assert own != hidden and client.get(f"/api/v1/jobs/{own}", headers=other.headers).status_code == 200


def test_a_page_that_asks_for_no_form_there_is_says_so(client: TestClient, finished: dict[str, Any]) -> None:
    for wanted in ("", "gif", "parquet many", "parquet 0"):
        answer = client.post(f"/jobs/{finished['id']}/exports", data={"form": wanted})
        assert answer.status_code == 422 and "should be" in answer.json()["detail"]
