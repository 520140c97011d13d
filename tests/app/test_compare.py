"""Jobs side by side, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.views.compare import differences
from tests.app.world import World, spec_body


def pair(client: TestClient, world: World) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Two finished jobs, and what comparing them answers."""
    changed = spec_body()["method"] | {"alpha": 0.2}
    made = [client.post("/api/v1/jobs", json={"spec": spec_body(**more)}).json() for more in ({}, {"method": changed})]
    world.work()
    return made, client.get(f"/api/v1/compare?ids={made[0]['id']},{made[1]['id']}").json()


def test_only_what_differs_is_told_and_everything_stands_in_the_order_asked_for(
    client: TestClient, world: World
) -> None:
    made, found = pair(client, world)
    assert [job["id"] for job in found["jobs"]] == [job["id"] for job in made]
    assert found["differences"] == [{"pointer": "/method/alpha", "values": [0.5, 0.2]}]
    line = found["scores"][0]
    assert (line["subject"], line["labels"], [row["mean"] for row in line["rows"]]) == ("distilled", "soft", [90, 90])
    loss = next(curve for curve in found["curves"] if curve["name"] == "recover.loss")
    assert loss["series"] == [[[0, 2.0], [1, 1.9], [2, 1.8], [3, 1.7]]] * 2
    assert [[sheet["x"] for sheet in own] for own in found["sheets"]] == [[2], [2]]


def test_a_job_that_has_not_begun_has_empty_places(client: TestClient, world: World) -> None:
    made, _ = pair(client, world)
    waits = client.post("/api/v1/jobs", json={"spec": spec_body(seed=7)}).json()
    found = client.get(f"/api/v1/compare?ids={made[0]['id']},{waits['id']}").json()
    assert found["curves"][0]["series"][1] == [] and found["sheets"][1] == []
    assert found["scores"][0]["rows"][1]["mean"] is None


def test_lines_of_jobs_with_other_numbers_of_images_meet(client: TestClient) -> None:
    made = [client.post("/api/v1/jobs", json={"spec": spec_body(ipc=ipc)}).json()["id"] for ipc in (1, 2)]
    line = client.get(f"/api/v1/compare?ids={','.join(made)}").json()["scores"][0]
    assert line["ipc"] is None and [row["ipc"] for row in line["rows"]] == [1, 2]


@pytest.mark.parametrize("count", [0, 1, 9])
def test_two_to_eight_jobs_are_compared(client: TestClient, count: int) -> None:
    ids = [client.post("/api/v1/jobs", json={"spec": spec_body(seed=seed)}).json()["id"] for seed in range(count)]
    answer = client.get(f"/api/v1/compare?ids={','.join(ids)}")
    assert answer.status_code == 422 and answer.json()["errors"][0]["parameter"] == "ids"


def test_a_foreign_job_is_not_there(client: TestClient, world: World) -> None:
    mine = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()["id"]
    headers = world.person("stranger").headers
    theirs = client.post("/api/v1/jobs", json={"spec": spec_body()}, headers=headers).json()["id"]
    assert client.get(f"/api/v1/compare?ids={mine},{theirs}").status_code == 404


def test_differences_are_told_by_pointer() -> None:
    specs = [{"a": [1, 2], "t": [{"n": "x"}], "b/c": 1}, {"a": [1, 3], "t": [{"n": "x"}, {"n": "y"}], "b/c": True}]
    found = {one.pointer: one.values for one in differences(specs)}
    assert found == {"/a": [[1, 2], [1, 3]], "/t/1/n": [None, "y"], "/b~1c": [1, True]}
