"""Jobs over HTTP: plan, create, list, read, cancel, run again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image

from app.models import Job, Step
from engine.plan import StepKind
from tests.app.world import Person, World, chain, spec_body

USUAL = set(StepKind) - {StepKind.OBSERVE, StepKind.CONTINUAL, StepKind.EXPORT}  # the others have to be asked for


def create(client: TestClient, key: str | None = None, **changes: Any) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post("/api/v1/jobs", json={"spec": spec_body(**changes)}, headers=headers)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


def test_a_dry_run_tells_steps_and_costs_and_stores_nothing(client: TestClient, world: World) -> None:
    answer = client.post("/api/v1/jobs/plan", json={"spec": spec_body()})
    assert answer.status_code == 200
    plan = answer.json()
    assert {step["kind"] for step in plan["steps"]} == USUAL
    assert plan["spec"]["method"]["sizes"] == [8, 8]
    assert plan["estimate"]["seconds"].keys() == {"cpu", "gpu"}
    assert [row["runs"] for row in plan["rows"]] == [2, 2]
    assert not any(step["cached"] for step in plan["steps"])
    assert world.count(Job) == 0


def test_a_job_without_students_is_told_that_it_has_no_score_card(client: TestClient) -> None:
    spec = spec_body() | {"evaluation": {"students": []}}
    plan = client.post("/api/v1/jobs/plan", json={"spec": spec}).json()
    assert plan["warnings"] == ["No student is named: there will be no score card."] and not plan["rows"]


def test_a_dry_run_knows_what_the_store_holds(client: TestClient, world: World) -> None:
    create(client)
    world.work()
    plan = client.post("/api/v1/jobs/plan", json={"spec": spec_body()}).json()
    assert all(step["cached"] for step in plan["steps"])
    assert not any(value for name, value in plan["estimate"].items() if name != "seconds")
    assert plan["estimate"]["seconds"] == {"cpu": 0, "gpu": 0}


def test_a_created_job_waits_with_all_its_steps(client: TestClient, owner: Person) -> None:
    answer = client.post("/api/v1/jobs", json={"name": "Ångström", "spec": spec_body()})
    job = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert job["state"] == "queued" and job["name"] == "Ångström" and job["owner"]["id"] == owner.user.id
    assert job["sentence"] == "Waiting: no worker is connected." and job["queue"]["position"] == 1
    assert {step["state"] for step in job["steps"]} == {"queued"}
    assert [stage["kind"] for stage in job["stages"]] == [kind for kind in StepKind if kind in USUAL]


def test_a_preset_is_a_spec_with_changes(client: TestClient) -> None:
    body = {"preset": "demo", "overrides": {"ipc": 2, "method": {"method": "rded"}, "labels": {"epochs": 7}}}
    job = client.post("/api/v1/jobs", json=body).json()
    spec = client.get(job["urls"]["self"] + "/spec").json()
    assert spec["ipc"] == 2 and spec["method"] == {"method": "rded"} and spec["labels"]["epochs"] == 7


def test_the_same_key_gives_the_same_job(client: TestClient, world: World) -> None:
    first = create(client, "k")
    again = client.post("/api/v1/jobs", json={"spec": spec_body()}, headers={"Idempotency-Key": "k"})
    assert again.status_code == 200 and again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first["id"] and world.count(Job) == 1


def test_the_same_key_with_another_spec_is_refused(client: TestClient, world: World) -> None:
    create(client, "k")
    other = client.post("/api/v1/jobs", json={"spec": spec_body(seed=9)}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["detail"]
    assert world.count(Job) == 1


def test_a_key_that_made_a_job_that_more_people_see_is_refused(client: TestClient, world: World) -> None:
    body, key = {"spec": spec_body()}, {"Idempotency-Key": "k"}
    made = client.post("/api/v1/jobs", json=body | {"visibility": "all"}, headers=key).json()
    refused = client.post("/api/v1/jobs", json=body | {"visibility": "private"}, headers=key)
    assert refused.status_code == 422 and made["id"] in refused.json()["detail"] and world.count(Job) == 1
    for again in (body, body | {"visibility": "all", "name": "another"}):
        assert client.post("/api/v1/jobs", json=again, headers=key).json()["id"] == made["id"]


@pytest.mark.parametrize("way", ["jobs", "rerun"])
def test_a_key_gives_its_job_also_when_the_data_set_has_gone(client: TestClient, folder: Path, way: str) -> None:
    (folder.parent / "latest").symlink_to(folder)
    body, key = folder_spec(folder.parent / "latest"), {"Idempotency-Key": "k"}
    url = "/api/v1/jobs"
    if way == "rerun":
        url = client.post(url, json=body).json()["urls"]["self"] + "/rerun"
    first = client.post(url, json=body, headers=key)
    assert first.status_code == 201, first.text
    folder.rename(folder.with_name("moved"))
    again = client.post(url, json=body, headers=key)
    assert again.status_code == 200 and again.json()["id"] == first.json()["id"]
    assert client.post(url, json=body, headers={"Idempotency-Key": "new"}).status_code == 422


def test_keys_of_two_users_do_not_meet(client: TestClient, world: World) -> None:
    mine = create(client, "k")
    theirs = client.post(
        "/api/v1/jobs",
        json={"spec": spec_body()},
        headers={"Idempotency-Key": "k"} | world.person("other").headers,
    )
    assert theirs.status_code == 201 and theirs.json()["id"] != mine["id"]


def test_one_key_sent_by_many_threads_makes_one_job(client: TestClient, world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {job["id"] for job in pool.map(lambda _: create(client, "k"), range(16))}
    assert len(ids) == 1 and world.count(Job) == 1


def test_a_job_can_be_polled_for_nothing(client: TestClient) -> None:
    url = create(client)["urls"]["self"]
    etag = client.get(url).headers["etag"]
    unchanged = client.get(url, headers={"If-None-Match": etag})
    assert unchanged.status_code == 304 and not unchanged.content
    client.post(f"{url}/cancel")
    assert client.get(url, headers={"If-None-Match": etag}).status_code == 200


def test_a_list_is_read_page_by_page(client: TestClient) -> None:
    made = [create(client, seed=seed)["id"] for seed in range(5)]
    seen, url = [], "/api/v1/jobs?limit=2"
    while url:
        answer = client.get(url)
        seen += [job["id"] for job in answer.json()["data"]]
        url = answer.links.get("next", {}).get("url", "")
    assert seen == made[::-1]


def test_a_list_can_be_narrowed(client: TestClient, world: World, owner: Person) -> None:
    admin = world.person("admin")
    world.submit(owner, chain("a"), name="100% apples")
    cancelled = world.submit(owner, chain("b"), name="pears")
    client.post(f"/api/v1/jobs/{cancelled.id}/cancel")

    def names(query: str, who: Person = owner) -> list[str]:
        return [job["name"] for job in client.get(f"/api/v1/jobs?{query}", headers=who.headers).json()["data"]]

    assert names("state=cancelled") == ["pears"]
    assert names("state=cancelled&state=queued") == ["pears", "100% apples"]
    assert names("q=0%25") == ["100% apples"] and names("q=_") == []
    assert names("owner=me", admin) == [] and len(names("owner=owner", admin)) == 2
    assert client.get("/api/v1/jobs?status=queued").status_code == 422


CURSORS = ("jobs?after=zzz", "jobs?after=job_1", "sweeps?after=zzz", "sweeps?after=job_0123", "audit-events?after=zzz")


@pytest.mark.parametrize(
    "url", [*(f"/api/v1/{one}" for one in CURSORS), "/jobs?after=zzz", "/sweeps?after=zzz", "/settings/audit?after=zzz"]
)
def test_what_is_no_cursor_is_not_taken_for_the_first_page(client: TestClient, world: World, url: str) -> None:
    [error] = client.get(url, headers=world.person("admin").headers).json()["errors"]
    assert error["parameter"] == "after" and "next_cursor of the page before" in error["detail"]


def test_a_list_of_jobs_in_a_state_that_there_is_not_is_refused(client: TestClient) -> None:
    assert client.get("/jobs?state=failed").status_code == client.get("/jobs?state=").status_code == 200
    assert client.get("/jobs?state=zz").json()["errors"][0]["parameter"] == "state"


def test_a_waiting_job_is_cancelled_at_once(client: TestClient) -> None:
    job = client.post(create(client)["urls"]["cancel"]).json()
    assert job["state"] == "cancelled" and {step["state"] for step in job["steps"]} == {"cancelled"}
    assert client.post(job["urls"]["cancel"]).status_code == 200


def test_a_finished_job_cannot_be_cancelled(client: TestClient, world: World) -> None:
    job = create(client)
    world.work()
    answer = client.post(job["urls"]["cancel"])
    assert answer.status_code == 409 and answer.json()["code"] == "conflict"


def test_running_again_makes_a_new_job_of_the_same_spec(client: TestClient, world: World) -> None:
    job = create(client)
    again = client.post(f"/api/v1/jobs/{job['id']}/rerun", headers={"Idempotency-Key": "again"})
    assert again.status_code == 201
    assert again.json()["id"] != job["id"] and again.json()["spec_sha256"] == job["spec_sha256"]
    assert world.count(Job) == 2


def test_a_spec_can_be_sent_again_as_json_or_yaml(client: TestClient) -> None:
    url = create(client)["urls"]["self"] + "/spec"
    spec = client.get(url).json()
    assert spec == spec_body() and yaml.safe_load(client.get(f"{url}?format=yaml").text) == spec


def test_a_user_has_a_limit_of_unfinished_jobs(client: TestClient, world: World, owner: Person) -> None:
    for index in range(world.services.settings.max_queued_per_user):
        world.submit(owner, chain(str(index)))
    answer = client.post("/api/v1/jobs", json={"spec": spec_body()})
    assert answer.status_code == 429 and answer.headers["retry-after"] == "60"


def test_a_finished_job_says_so(client: TestClient, world: World) -> None:
    job = create(client)
    world.work()
    done = client.get(job["urls"]["self"]).json()
    assert done["state"] == "succeeded" and done["progress"] == 1 and done["sentence"].startswith("Finished after")
    attempts = client.get(f"{job['urls']['self']}/attempts").json()
    assert len(attempts) == world.count(Step) and {one["outcome"] for one in attempts} == {"succeeded"}


def test_a_failed_job_says_why(client: TestClient, world: World) -> None:
    job = create(client)
    lease = world.claim()
    assert lease is not None
    world.fail(lease, "A loss is not finite.")
    failed = client.get(job["urls"]["self"]).json()
    assert failed["state"] == "failed" and failed["sentence"] == "A loss is not finite."
    assert failed["error"]["code"] == "nan_loss" and failed["error"]["step"] == lease.step.title


@pytest.fixture
def folder(world: World) -> Path:
    """A data set under an allowed root."""
    return make_folder(world.services.settings.data_roots[0] / "pets")


def make_folder(path: Path) -> Path:
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (index, 0, 0)).save(path / name / f"{index}.png")
    return path


def folder_spec(path: Path, **changes: Any) -> dict[str, Any]:
    return {"spec": spec_body(dataset={"source": "folder", "path": str(path)}, **changes)}


def test_a_folder_under_a_root_is_a_data_set(client: TestClient, folder: Path) -> None:
    plan = client.post("/api/v1/jobs/plan", json=folder_spec(folder)).json()
    assert plan["dataset"] == {
        "title": "pets",
        "classes": 2,
        "train_images": 6,
        "test_images": 2,
        "resolution": 32,
    }
    offered = client.get("/api/v1/datasets").json()
    assert offered[-1]["dataset"]["path"] == str(folder) and offered[-1]["classes"] == 2
    assert [entry["dataset"]["source"] for entry in offered[:3]] == ["digits", "torchvision", "torchvision"]


def test_no_way_leads_out_of_the_roots(client: TestClient, world: World, folder: Path, tmp_path: Path) -> None:
    outside = make_folder(tmp_path / "elsewhere")
    (folder.parent / "link").symlink_to(outside)
    (folder.parent / "ring").symlink_to(folder.parent / "ring")
    ways = [
        outside,
        folder.parent / "link",
        folder / ".." / ".." / "elsewhere",
        Path("pets"),
        folder.parent / "nothing",
        folder.parent / ("n" * 300),
        folder.parent / "ring",
    ]
    for way in ways:
        answer = client.post("/api/v1/jobs", json=folder_spec(way))
        problem = answer.json()
        assert answer.status_code == 422 and problem["errors"][0]["pointer"] == "/spec/dataset/path", way
        assert str(folder.parent) in problem["errors"][0]["hint"]
    assert world.count(Job) == 0
    assert "link" not in {entry["title"] for entry in client.get("/api/v1/datasets").json()}


@pytest.mark.parametrize("weights", ["/etc/passwd", "teacher.safetensors", "/elsewhere/teacher.safetensors", "\0"])
def test_weights_come_from_below_the_roots_or_not_at_all(client: TestClient, world: World, weights: str) -> None:
    spec = {"teachers": [{"network": "convnet3_w32", "weights": weights}]}
    answer = client.post("/api/v1/jobs", json={"spec": spec})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/spec/teachers/0/weights"
    assert "Allowed roots" in answer.json()["hint"] and world.count(Job) == 0


def test_other_weights_under_the_same_name_make_another_teacher(client: TestClient, folder: Path) -> None:
    weights = folder.parent / "teacher.safetensors"
    spec = {"teachers": [{"network": "convnet3_w32", "weights": str(weights)}]}
    keys = []
    for content in (b"one", b"other"):
        weights.write_bytes(content)
        steps = client.post("/api/v1/jobs/plan", json={"spec": spec}).json()["steps"]
        keys += [step["key"] for step in steps if step["kind"] == "teach"]
    assert len(keys) == len(set(keys)) == 2
    weights.unlink()
    answer = client.post("/api/v1/jobs/plan", json={"spec": spec})
    assert answer.status_code == 422 and "There is no file of weights" in answer.json()["detail"]


def test_a_link_inside_a_data_set_must_not_lead_out_of_the_roots(
    client: TestClient, folder: Path, tmp_path: Path
) -> None:
    outside = make_folder(tmp_path / "elsewhere")
    kept, stranger = sorted(folder.rglob("*.png"))[0], sorted(outside.rglob("*.png"))[0]
    body = {"spec": {"dataset": {"source": "folder", "path": str(folder)}, "ipc": 1}}
    link = kept.with_name("zz.png")
    link.symlink_to(kept)
    assert client.post("/api/v1/jobs/plan", json=body).status_code == 200
    link.unlink()
    link.symlink_to(stranger)
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422 and "leads out" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "/spec/dataset/path"


def test_a_link_inside_the_roots_is_stored_as_what_it_is(client: TestClient, folder: Path) -> None:
    (folder.parent / "latest").symlink_to(folder)
    job = client.post("/api/v1/jobs", json=folder_spec(folder.parent / "latest")).json()
    assert client.get(job["urls"]["self"] + "/spec").json()["dataset"]["path"] == str(folder)


def test_thousands_of_unknown_fields_are_answered_briefly(client: TestClient) -> None:
    spec = {f"k{index}": 1 for index in range(20_000)}
    problem = client.post("/api/v1/jobs/plan", json={"spec": spec}).json()
    assert problem["detail"].startswith("More than 50 fields are wrong.") and len(problem["errors"]) == 50


def test_a_long_value_is_not_sent_back(client: TestClient) -> None:
    for body in ({"preset": "a" * 900_000}, {"spec": {"method": {"method": "a" * 900_000}}}):
        answer = client.post("/api/v1/jobs/plan", json=body)
        assert answer.status_code == 422 and len(answer.content) < 2000


def test_a_list_is_narrowed_by_data_set_and_method(client: TestClient, folder: Path) -> None:
    made = create(client)
    pets = client.post("/api/v1/jobs", json=folder_spec(folder)).json()

    def ids(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/api/v1/jobs?{query}").json()["data"]]

    assert ids("dataset=pets") == ids(f"dataset={folder}") == [pets["id"]] and pets["dataset"] == "pets"
    assert ids("dataset=digits") == [made["id"]] and ids("dataset=et") == ids("dataset=%25") == []
    assert ids("method=fadrm") == [pets["id"], made["id"]] and ids("method=rded") == []


def test_who_saw_an_older_name_does_not_overwrite_a_newer_one(client: TestClient, world: World) -> None:
    url = create(client)["urls"]["self"]
    seen = {"If-Match": client.get(url).headers["etag"]}
    lease = world.claim()
    assert lease is not None and client.get(url).headers["etag"] != seen["If-Match"], "it went on"
    first = client.patch(url, json={"name": "mine"}, headers=seen)
    assert first.status_code == 200 and first.headers["etag"] == client.get(url).headers["etag"]
    second = client.patch(url, json={"name": "theirs"}, headers=seen)
    assert (
        second.status_code == 412
        and second.json()["code"] == "outdated"
        and world.job(first.json()["id"]).name == "mine"
    )
    either = {"If-Match": f'"other", {first.headers["etag"]}'}
    assert client.patch(url, json={"priority": -1}, headers=either).status_code == 200
    assert client.patch(url, json={"name": "last"}, headers={"If-Match": "*"}).status_code == 200
    assert client.patch(url, json={"name": "lost"}, headers={"If-Match": ""}).status_code == 412
