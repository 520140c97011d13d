"""What a job leaves, over HTTP: curves, contact sheets, score card, log, files."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.models import Step
from app.problems import MEDIA_TYPE
from engine import events
from engine.plan import StepKind
from tests.app.world import World, spec_body

ZIP = bytes(range(256)) * 40
SHA = hashlib.sha256(ZIP).hexdigest()


@pytest.fixture
def finished(client: TestClient, world: World) -> dict[str, Any]:
    """A job that is done."""
    job = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    world.work()
    done: dict[str, Any] = client.get(job["urls"]["self"]).json()
    return done


def test_curves_come_by_step_with_the_injections_marked(client: TestClient, finished: dict[str, Any]) -> None:
    answer = client.get(finished["urls"]["metrics"]).json()
    [recover] = answer["data"]
    assert recover["kind"] == "recover" and recover["unit"] == "iterations"
    assert recover["series"]["recover.loss"] == [[0, 2.0], [1, 1.9], [2, 1.8], [3, 1.7]]
    assert recover["marks"] == [{"x": 2, "alpha": 0.5, "size_from": 8, "size_to": 8}]
    assert answer["last_seq"] == finished["version"]


def test_curves_can_be_chosen_by_name(client: TestClient, finished: dict[str, Any]) -> None:
    def names(wanted: str) -> set[str]:
        found = client.get(finished["urls"]["metrics"] + f"?names={wanted}").json()["data"]
        return {name for step in found for name in step["series"]}

    assert names("recover") == {"recover.loss", "recover.loss_bn"}
    assert names("recover.loss") == {"recover.loss"} and names("recover.los") == set()


def test_a_job_that_found_a_step_in_the_store_shows_its_curves(
    client: TestClient, world: World, finished: dict[str, Any]
) -> None:
    again = client.post(finished["urls"]["self"] + "/rerun").json()
    assert client.get(again["urls"]["previews"]).json()["data"] == []  # not before the job has come to the step
    world.work()
    assert len(client.get(again["urls"]["metrics"]).json()["data"]) == 1
    assert len(client.get(again["urls"]["previews"]).json()["data"]) == 1


def test_thousands_of_points_are_thinned_by_the_server(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    lease = world.claim()
    assert lease is not None
    world.tell(lease, *(events.Metric(x=x, values={"loss": x % 7}) for x in range(3000)))
    [curves] = client.get(job["urls"]["metrics"] + "?max_points=100").json()["data"]
    assert 50 < len(curves["series"]["loss"]) <= 100


def test_curves_tell_when_their_points_came(client: TestClient, finished: dict[str, Any]) -> None:
    [recover] = client.get(finished["urls"]["metrics"] + "?clocks=true").json()["data"]
    assert [x for x, _ in recover["clock"]] == [0, 1, 2, 3]
    assert all(0 <= seconds < 60 for _, seconds in recover["clock"])
    assert client.get(finished["urls"]["metrics"]).json()["data"][0]["clock"] == []


def test_contact_sheets_never_change(client: TestClient, finished: dict[str, Any]) -> None:
    [sheets] = client.get(finished["urls"]["previews"]).json()["data"]
    [sheet] = sheets["previews"]
    assert (sheet["x"], sheet["columns"], sheet["labels"], sheet["names"]) == (2, 1, [3], ["3 · ipc 1"])
    png = client.get(sheet["url"])
    assert hashlib.sha256(png.content).hexdigest() == sheet["sha256"]
    assert png.headers["content-type"] == "image/png" and "immutable" in png.headers["cache-control"]


def test_the_score_card_has_every_run(client: TestClient, finished: dict[str, Any]) -> None:
    card = client.get(finished["urls"]["results"]).json()
    assert card["complete"] and [row["subject"] for row in card["rows"]] == ["distilled", "random"]
    row = card["rows"][0]
    assert (row["n"], row["mean"], row["std"], row["last"], row["best"]) == (2, 90, 0, [90, 90], [91, 91])
    assert [run["state"] for run in row["runs"]] == ["succeeded", "succeeded"]
    assert card["teachers"][0]["top1_pct"] == 97.5
    assert "no difference is shown" in card["verdicts"][0]


def test_the_score_card_is_shown_as_far_as_it_is_known(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body()}).json()
    while (lease := world.claim()) is not None:
        world.perform(lease)
        if lease.step.kind == StepKind.EVALUATE:
            break
    card = client.get(job["urls"]["results"]).json()
    assert not card["complete"] and sum(row["n"] for row in card["rows"]) == 1
    assert [row["std"] for row in card["rows"]] == [None, None]
    assert client.get(job["urls"]["artifacts"]).json() == {
        "ready": False,
        "finished_at": None,
        "data": [],
        "building": [],
    }


def test_files_are_listed_with_size_and_hash(client: TestClient, finished: dict[str, Any]) -> None:
    listed = client.get(finished["urls"]["artifacts"]).json()
    assert listed["ready"] and [file["name"] for file in listed["data"]] == ["card.md", "distilled set.zip"]
    archive = listed["data"][1]
    assert (archive["size_bytes"], archive["sha256"]) == (len(ZIP), SHA)
    download = client.get(archive["url"])
    assert download.content == ZIP
    assert download.headers["etag"] == f'"sha256-{SHA}"' and download.headers["content-security-policy"] == "sandbox"
    assert "attachment" in download.headers["content-disposition"]
    digest = base64.b64encode(hashlib.sha256(ZIP).digest()).decode()
    assert download.headers["repr-digest"] == f"sha-256=:{digest}:"


def test_every_ipc_and_form_is_listed_the_largest_ipc_first(client: TestClient, world: World) -> None:
    spec = spec_body(ipc=2, nested=[1], exports=["webdataset", "fkd"])
    job = client.post("/api/v1/jobs", json={"spec": spec}).json()
    world.work()
    listed = client.get(job["urls"]["artifacts"]).json()
    assert listed["ready"] and listed["finished_at"]
    assert [(file["ipc"], file["form"], file["name"]) for file in listed["data"]] == [
        (2, "package", "card.md"),
        (2, "package", "distilled set.zip"),
        (2, "fkd", "fkd-2"),
        (2, "webdataset", "webdataset-2"),
        (1, "package", "nested.zip"),
        (1, "fkd", "fkd-1"),
        (1, "webdataset", "webdataset-1"),
    ]
    assert [client.get(file["url"]).content for file in listed["data"][-2:]] == [b"exported"] * 2


def test_files_are_listed_as_they_are_written_and_ready_says_when_all_are(client: TestClient, world: World) -> None:
    job = client.post("/api/v1/jobs", json={"spec": spec_body(exports=["uint8"])}).json()
    while (lease := world.claim()) is not None:
        world.perform(lease)
        if lease.step.kind in (StepKind.PACKAGE, StepKind.EXPORT):
            break
    listed = client.get(job["urls"]["artifacts"]).json()
    assert not listed["ready"] and listed["finished_at"] is None and listed["data"]
    world.work()
    assert client.get(job["urls"]["artifacts"]).json()["ready"]


def test_a_download_goes_on_where_it_broke_off(client: TestClient, finished: dict[str, Any]) -> None:
    url = finished["urls"]["artifacts"] + "/distilled%20set.zip"
    head = client.head(url)
    assert head.status_code == 200 and head.headers["content-length"] == str(len(ZIP)) and not head.content
    etag = head.headers["etag"]
    rest = client.get(url, headers={"Range": "bytes=100-", "If-Range": etag})
    assert rest.status_code == 206 and rest.content == ZIP[100:]
    assert rest.headers["content-range"] == f"bytes 100-{len(ZIP) - 1}/{len(ZIP)}"
    assert client.get(url, headers={"Range": "bytes=-5"}).content == ZIP[-5:]
    changed = client.get(url, headers={"Range": "bytes=100-", "If-Range": '"sha256-other"'})
    assert changed.status_code == 200 and changed.content == ZIP
    past = client.get(url, headers={"Range": f"bytes={len(ZIP)}-"})
    assert past.status_code == 416 and past.headers["content-range"] == f"bytes */{len(ZIP)}"
    assert past.headers["content-type"] == MEDIA_TYPE and past.json()["code"] == "no_such_range"
    unchanged = client.get(url, headers={"If-None-Match": etag})
    assert unchanged.status_code == 304 and not unchanged.content


@pytest.mark.parametrize(
    "asked", ["bytes=a-b", "bytes=", "bytes=5-2", "items=0-1", "nonsense", "bytes=" + "9" * 5000 + "-"]
)
def test_a_range_that_cannot_be_read_is_passed_over(client: TestClient, finished: dict[str, Any], asked: str) -> None:
    answer = client.get(finished["urls"]["artifacts"] + "/distilled%20set.zip", headers={"Range": asked})
    assert answer.status_code == 200 and answer.content == ZIP


@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fsecret", "manifest.json", "nothing.zip", "%2fetc%2fpasswd", "card.md%00"]
)
def test_only_what_is_listed_can_be_downloaded(client: TestClient, finished: dict[str, Any], name: str) -> None:
    assert client.get(f"{finished['urls']['artifacts']}/{name}").status_code == 404


def test_the_log_tells_what_happened(client: TestClient, finished: dict[str, Any]) -> None:
    page = client.get(finished["urls"]["log"]).json()
    told = [line["message"] for line in page["data"]]
    assert told[0] == "Job queued." and told[-1] == "Job succeeded."
    assert "Patches mixed in after iteration 2 (alpha 0.5, 8 to 8 px)." in told and "All is well" in told
    assert "Done in 2 s." in told and {line["level"] for line in page["data"]} == {"info"}
    text = client.get(finished["urls"]["log"] + "?format=text")
    assert text.headers["content-disposition"].startswith("attachment")
    assert len(text.text.splitlines()) == len(told) and "Recover images: All is well" in text.text


def test_the_log_can_be_read_on(client: TestClient, finished: dict[str, Any]) -> None:
    whole = client.get(finished["urls"]["log"]).json()["data"]
    first = client.get(finished["urls"]["log"] + "?limit=5").json()
    rest = client.get(finished["urls"]["log"] + f"?after_seq={first['last_seq']}").json()
    assert first["has_more"] and first["data"] + rest["data"] == whole


def test_events_are_numbered_without_gap(client: TestClient, finished: dict[str, Any]) -> None:
    url, seen, after = finished["urls"]["events"], [], 0
    while True:
        page = client.get(f"{url}?after_seq={after}&limit=7").json()
        seen += [event["seq"] for event in page["data"]]
        after = page["last_seq"]
        if not page["has_more"]:
            break
    assert seen == list(range(1, finished["version"] + 1))
    kinds = {event["kind"] for event in client.get(f"{url}?kinds=injection,preview").json()["data"]}
    assert kinds == {"injection", "preview"}


def test_workers_say_what_they_do(client: TestClient, world: World) -> None:
    assert client.get("/api/v1/workers").json() == []
    world.worker_online()
    [worker] = client.get("/api/v1/workers").json()
    assert worker["online"] and worker["device_name"] == "A CPU" and worker["step"] is None


def test_every_step_of_a_finished_job_is_whole(client: TestClient, world: World, finished: dict[str, Any]) -> None:
    assert len(finished["steps"]) == world.count(Step)
    assert {step["state"] for step in finished["steps"]} == {"succeeded"}
    assert {stage["progress"] for stage in finished["stages"]} == {1.0}
