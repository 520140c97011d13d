"""The teachers in the store: on a page and in the API."""

from __future__ import annotations

import re

from starlette.testclient import TestClient

from engine.spec import Teacher
from tests.app.tensor_files import SMALL as SMALL_NETWORK
from tests.app.tensor_files import weights
from tests.pages.site import SMALL, Site
from tests.pages.test_datasets import csrf_of


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


def send(client: TestClient, data: bytes, **fields: str) -> str:
    """The page after the form was posted, as a browser without scripts does."""
    form = {"csrf": csrf_of(client.get("/teachers").text), "network": SMALL_NETWORK, **fields}
    return client.post(
        "/teachers", data=form, files={"file": ("bugs.safetensors", data, "application/octet-stream")}
    ).text


def test_weights_are_sent_by_a_form_shown_to_others_taught_with_and_removed(client: TestClient, site: Site) -> None:
    page = send(client, weights())
    assert "bugs" in page and "ConvNet, 3 layers, width 32" in page and "below 128 px" in page
    shown = re.search(r'action="(/teachers/[0-9a-f]{64}/visibility)"', page)
    assert shown and "only its owner" in page
    page = client.post(shown[1], data={"csrf": csrf_of(page), "visibility": "all"}).text
    assert "<summary>everybody</summary>" in page
    teach = re.search(r'href="(/jobs/new\?weights=([0-9a-f]{64}))"', page)
    assert teach
    form = client.get(teach[1]).text
    assert f'value="{teach[2]}"' in form and "know 10 classes" not in form
    page = client.post(shown[1].replace("visibility", "remove"), data={"csrf": csrf_of(page)}).text
    assert "bugs" not in page and "Upload weights" in page
    site.demote()
    assert "Upload weights" not in client.get("/teachers").text


def test_what_cannot_be_taken_is_said_on_the_page(client: TestClient) -> None:
    assert "torch.save writes" in send(client, b"PK\x03\x04 and so on") and "engine.convert" in send(
        client, b"PK\x03\x04"
    )
    assert "but of convnet3_w32" in send(client, weights(), network="convnet3")
    assert "is no network that is known here" in send(client, weights(), network="<b>")


def test_weights_that_a_job_needs_stay(client: TestClient, site: Site) -> None:
    send(client, weights())
    [made] = client.get("/api/v1/weights").json()
    site.submit("Taught from afar", SMALL.model_copy(update={"teachers": (Teacher(**made["teacher"]),)}))
    page = client.get("/teachers").text
    page = client.post(f"/teachers/{made['id']}/remove", data={"csrf": csrf_of(page)}).text
    assert "uses this upload, and has not ended" in page
    site.player.play()
    assert "uploaded" in client.get("/teachers").text


def test_a_teacher_from_a_file_of_the_server_is_shown_with_its_path(client: TestClient, site: Site) -> None:
    path = site.services.settings.data_roots[0] / "bugs.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(weights())
    teacher = Teacher(network=SMALL_NETWORK, weights=str(path))
    site.submit("Taught by a file", SMALL.model_copy(update={"teachers": (teacher,)}))
    site.player.play()
    assert str(path) in client.get("/teachers").text
