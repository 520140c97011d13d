"""Downloads are the bytes that were written; where they are not, the job makes them again."""

from __future__ import annotations

from fastapi.testclient import TestClient

from app.models import JobState
from tests.app.world import World, spec_body


def test_a_damaged_download_is_not_given_out_and_made_again_by_a_retry(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    world.work()
    [file] = [one for one in client.get(job["urls"]["artifacts"]).json()["data"] if one["name"].endswith(".zip")]
    path = world.services.store.step(file["step"]) / file["name"]
    assert client.post(job["urls"]["retry"]).status_code == 409
    good = client.get(file["url"]).content
    path.write_bytes(b"\0" * len(good))
    gone = client.get(file["url"], headers={"Range": "bytes=5-"})
    assert gone.status_code == 410 and file["name"] in gone.json()["detail"] and "again" in gone.json()["hint"]
    assert not client.get(job["urls"]["artifacts"]).json()["ready"]
    assert client.get(file["url"]).status_code == 404
    assert client.post(job["urls"]["retry"]).json()["state"] == "running"
    assert world.work() == 1 and world.job(job["id"]).state == JobState.SUCCEEDED
    assert client.get(file["url"]).content == good
