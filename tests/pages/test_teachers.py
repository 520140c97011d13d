"""The teachers in the store: on a page and in the API."""

from __future__ import annotations

from starlette.testclient import TestClient

from tests.pages.site import SMALL, Site


def test_a_teacher_is_told_once_with_its_accuracy_and_the_jobs_that_used_it(client: TestClient, site: Site) -> None:
    assert "No teacher was trained yet" in client.get("/teachers").text
    first = site.submit("The first")
    site.player.play()
    site.submit("The second", SMALL.model_copy(update={"seed": 9}))
    site.player.play()
    [found] = client.get("/api/v1/teachers").json()
    assert found["network"] == "convnet3_w32" and found["dataset"]["source"] == "digits" and found["size_bytes"] >= 0
    assert [job["name"] for job in found["jobs"]] == ["The second", "The first"]
    assert found["teacher"]["epochs"] == 6 and found["jobs"][1]["id"] == first
    page = client.get("/teachers").text
    assert "trained here" in page and "The second" in page and "and 1 more" in page
