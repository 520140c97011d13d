"""Sweeps over HTTP: one request makes its jobs, all or none, and reads as one table."""

from __future__ import annotations

import csv
import io
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from app import sweeps, views
from app.models import Job, Step, Sweep
from app.pages.assets import ROOT
from app.results.suites import RUNS
from tests.app import world as worlds
from tests.app.world import Person, World, chain, spec_body

ALPHA = {"name": "alpha", "path": "/method/alpha", "values": [0.2, 0.8]}
TWO = [{"network": name, "epochs": 1} for name in ("convnet3_w32", "resnet18_w16")]
RECIPE = {
    "name": "recipe",
    "variants": [
        {"title": "FADRM", "patch": {}},
        {"title": "FADRM+", "patch": {"method": {"method": "fadrm+", "budgets": [2, 2]}, "teachers": TWO}},
    ],
}
RDED = {"title": "RDED", "patch": {"method": {"method": "rded"}}}


def body(*axes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"name": "Merge ratio", "spec": spec_body(**changes), "axes": list(axes or (ALPHA, RECIPE))}


ONE = body({"name": "seed", "path": "/seed", "values": [3]})


def create(client: TestClient, wanted: dict[str, Any] | None = None, key: str | None = None) -> Any:
    headers = {"Idempotency-Key": key} if key else {}
    answer = client.post("/api/v1/sweeps", json=wanted or body(), headers=headers)
    assert answer.status_code in {200, 201}, answer.text
    return answer.json()


def refused(client: TestClient, world: World, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wrong with a request, which planning and creating say alike, and which leaves nothing."""
    planned = client.post("/api/v1/sweeps/plan", json=wanted)
    created = client.post("/api/v1/sweeps", json=wanted)
    assert planned.status_code == created.status_code == 422, created.text
    assert planned.json()["errors"] == created.json()["errors"]
    assert world.count(Sweep) == world.count(Job) == 0
    found: list[dict[str, Any]] = created.json()["errors"]
    return found


def test_a_plan_counts_jobs_and_steps_that_they_share_and_stores_nothing(client: TestClient, world: World) -> None:
    plan = client.post("/api/v1/sweeps/plan", json=body()).json()
    assert [job["values"] for job in plan["jobs"]] == [
        {"alpha": alpha, "recipe": recipe} for alpha in ("0.2", "0.8") for recipe in ("FADRM", "FADRM+")
    ]
    assert plan["steps"] == sum(job["new_steps"] for job in plan["jobs"])
    assert plan["shared"] == sum(job["steps"] for job in plan["jobs"]) - plan["steps"] > 0
    alone = [client.post("/api/v1/jobs/plan", json={"spec": spec_body()}).json()["estimate"]["flop"]]
    assert alone[0] < plan["estimate"]["flop"] and plan["cached"] == 0
    assert world.count(Sweep) == world.count(Job) == 0


def test_a_sweep_makes_a_job_a_cell_and_shares_steps(client: TestClient, world: World) -> None:
    answer = client.post("/api/v1/sweeps", json=body())
    sweep = answer.json()
    assert answer.status_code == 201 and answer.headers["location"] == sweep["urls"]["self"]
    assert sweep["state"] == "queued" and sweep["jobs"] == {"queued": 4} and sweep["progress"] == 0
    assert [cell["at"] for cell in sweep["cells"]] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    specs = [client.get(f"{cell['url']}/spec").json() for cell in sweep["cells"]]
    assert [(spec["method"]["alpha"], len(spec["teachers"])) for spec in specs] == [
        (0.2, 1),
        (0.2, 2),
        (0.8, 1),
        (0.8, 2),
    ]
    plan = client.post("/api/v1/sweeps/plan", json=body()).json()
    keys = {step.key for cell in sweep["cells"] for step in world.steps(cell["job_id"])}
    assert len(keys) == plan["steps"] < world.count(Step)


def test_a_sweep_ends_with_its_jobs(client: TestClient, world: World) -> None:
    sweep = create(client, ONE)
    world.work()
    ended = client.get(sweep["urls"]["self"]).json()
    assert ended["state"] == "succeeded" and ended["progress"] == 1 and ended["finished_at"]
    plan = client.post("/api/v1/sweeps/plan", json=ONE).json()
    assert plan["cached"] == plan["steps"] and plan["estimate"]["flop"] == 0
    answer = client.post(sweep["urls"]["cancel"])
    assert answer.status_code == 409 and answer.json()["code"] == "conflict"


def test_a_job_knows_its_sweep(client: TestClient) -> None:
    sweep = create(client)
    job = client.get(sweep["cells"][1]["url"]).json()
    assert job["sweep_id"] == sweep["id"] and job["name"] == "Merge ratio: alpha 0.2, recipe FADRM+"


def test_cells_read_with_mean_and_spread_of_every_subject(client: TestClient, world: World) -> None:
    sweep = create(client, ONE)
    world.work()
    found = client.get(sweep["urls"]["self"]).json()
    assert found["subjects"] == ["distilled", "random"] and found["students"] == ["convnet3_w32"]
    score = found["cells"][0]["scores"][0]
    assert (score["mean"], score["std"], score["best_mean"], score["n"]) == (90.0, 0.0, 91.0, 2)


def test_a_cell_tells_of_the_jobs_own_ipc_and_not_of_nested_ones(client: TestClient, world: World) -> None:
    sweep = create(client, body({"name": "seed", "path": "/seed", "values": [3]}, ipc=4, nested=[1, 2]))
    scores = client.get(sweep["urls"]["self"]).json()["cells"][0]["scores"]
    assert [(score["subject"], score["labels"]) for score in scores] == [("distilled", "soft"), ("random", "soft")]


def test_the_table_comes_as_json_and_as_csv(client: TestClient, world: World) -> None:
    hostile = {"name": "=cmd", "path": "/method/alpha", "values": [0.2, 0.8]}
    url = create(client, body(hostile))["urls"]["table"]
    world.work()
    table = client.get(url, params={"student": "convnet3_w32", "labels": "soft"}).json()
    assert table["columns"][:4] == ["job", "state", "=cmd", "Distilled images, last epoch %"]
    assert [row[1:4] for row in table["rows"]] == [["succeeded", "0.2", 90.0], ["succeeded", "0.8", 90.0]]
    answer = client.get(url, params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv") and ".csv" in answer.headers["content-disposition"]
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert rows[0][2] == "'=cmd" and rows[1][2:4] == ["0.2", "90.0"]


@pytest.mark.parametrize("query", ["student=nobody", "labels=none"])
def test_a_table_of_a_student_that_is_not_there_names_those_that_are(client: TestClient, query: str) -> None:
    answer = client.get(f"{create(client)['urls']['table']}?{query}")
    [error] = answer.json()["errors"]
    assert answer.status_code == 422 and error["parameter"] == query.partition("=")[0] and "Choose" in error["hint"]


def test_the_best_of_equal_ipc_is_marked_and_papers_stand_beside(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = RUNS["ablation-patches"][1]
    sweep = create(client, {"name": runs.name, "spec": spec_body(), "axes": list(runs.axes)})
    first = sweep["cells"][0]["job_id"]
    while lease := world.claim():
        reached = 40.0 if lease.job_id == first else 50.0
        results = {"evaluate": {"top1_last_pct": reached, "top1_best_pct": reached}}
        monkeypatch.setattr(worlds, "RESULTS", worlds.RESULTS | results)
        world.perform(lease)
    found = client.get(sweep["urls"]["self"]).json()
    own = [cell["scores"][0] for cell in found["cells"]]
    assert found["suite"] == "ablation" and [(one["mean"], one["is_best"]) for one in own] == [(40, False), (50, True)]
    assert [(one["paper"]["top1_pct"], one["paper"]["alike"], one["difference"]) for one in own] == [
        (48.4, False, None),
        (47.7, False, None),
    ]
    table = client.get(sweep["urls"]["table"]).json()
    place = table["columns"].index("Distilled images, paper %")
    assert [row[place] for row in table["rows"]] == [48.4, 47.7] and "Random real images, paper %" not in table[
        "columns"
    ]


def test_what_failed_or_was_cancelled_is_tried_again(client: TestClient, world: World) -> None:
    sweep = create(client, body(ALPHA))
    nothing = client.post(sweep["urls"]["retry"])
    assert nothing.status_code == 409 and "nothing to try again" in nothing.json()["hint"]
    client.post(sweep["urls"]["cancel"])
    again = client.post(sweep["urls"]["retry"])
    assert again.status_code == 200 and again.json()["jobs"] == {"queued": 2}


@pytest.mark.parametrize("depth", [40, 300, 800])
@pytest.mark.parametrize("part", ["values", "variants", "a mapping"])
def test_what_nests_deeply_is_refused_at_its_place(client: TestClient, world: World, depth: int, part: str) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if part == "a mapping" else [value]
    if part == "variants":
        axis, place = {"name": "x", "variants": [{"title": "a", "patch": {"exports": value}}]}, "variants/0/patch"
    else:
        axis, place = {"name": "x", "path": "/seed", "values": [value]}, "values/0"
    [error] = refused(client, world, body(axis))
    assert error["pointer"] == f"/axes/0/{place}" and "32 deep" in error["detail"]


def test_the_same_key_gives_the_same_sweep(client: TestClient, world: World) -> None:
    first = create(client, key="k")
    again = client.post("/api/v1/sweeps", json=body(), headers={"Idempotency-Key": "k"})
    assert again.status_code == 200 and again.headers["idempotent-replayed"] == "true"
    assert again.json()["id"] == first["id"] and world.count(Job) == 4
    other = client.post("/api/v1/sweeps", json=body(ALPHA), headers={"Idempotency-Key": "k"})
    assert other.status_code == 422 and "Idempotency-Key" in other.json()["detail"] and world.count(Sweep) == 1
    client.patch(first["urls"]["self"], json={"visibility": "all"})
    hidden = client.post("/api/v1/sweeps", json=body() | {"visibility": "private"}, headers={"Idempotency-Key": "k"})
    assert hidden.status_code == 422 and "visibility is all" in hidden.json()["detail"]


def test_one_key_sent_by_many_threads_makes_one_sweep(client: TestClient, world: World) -> None:
    with ThreadPoolExecutor(4) as pool:
        ids = {sweep["id"] for sweep in pool.map(lambda _: create(client, key="k"), range(6))}
    assert len(ids) == 1 and world.count(Job) == 4


def test_a_sweep_is_cancelled_as_a_whole(client: TestClient, world: World) -> None:
    sweep = create(client)
    lease = world.claim()
    assert lease is not None
    world.finish(lease)
    cancelled = client.post(sweep["urls"]["cancel"]).json()
    assert cancelled["state"] == "cancelled" and cancelled["jobs"] == {"cancelled": 4}
    assert client.post(sweep["urls"]["cancel"]).status_code == 200


def test_a_failed_cell_says_why_and_the_others_go_on(client: TestClient, world: World) -> None:
    sweep = create(client, body({"name": "seed", "path": "/teachers/0/seed", "values": [0, 1]}))
    failed = None
    while failed is None and (lease := world.claim()):
        if lease.step.kind == "teach":
            failed = lease.job_id
            world.fail(lease, "A loss is not finite.")
        else:
            world.perform(lease)
    world.work()
    found = client.get(sweep["urls"]["self"]).json()
    assert found["state"] == "failed" and found["jobs"] == {"succeeded": 1, "failed": 1}
    [cell] = [cell for cell in found["cells"] if cell["job_id"] == failed]
    assert cell["error"]["message"] == "A loss is not finite."


def test_sweeps_are_listed_page_by_page_and_only_ones_own(client: TestClient, world: World) -> None:
    made = [create(client, body(ALPHA, seed=seed))["id"] for seed in range(3)]
    seen, url = [], "/api/v1/sweeps?limit=2"
    while url:
        answer = client.get(url)
        seen += [sweep["id"] for sweep in answer.json()["data"]]
        url = answer.links.get("next", {}).get("url", "")
    assert seen == made[::-1]
    assert client.get("/api/v1/sweeps", headers=world.person("other").headers).json()["data"] == []
    assert len(client.get("/api/v1/sweeps", headers=world.person("admin").headers).json()["data"]) == 3


def test_a_sweep_counts_once_in_a_users_limit(client: TestClient, world: World, owner: Person) -> None:
    limit = world.services.settings.max_queued_per_user
    for index in range(limit - 1):
        world.submit(owner, chain(str(index)))
    create(client)
    answer = client.post("/api/v1/sweeps", json=body(ALPHA))
    assert answer.status_code == 429 and f"You have {limit} unfinished jobs" in answer.json()["detail"]


def test_a_preset_can_be_the_base(client: TestClient) -> None:
    wanted = {"preset": "demo", "overrides": {"ipc": 1}, "axes": [{"name": "seed", "path": "/seed", "values": [1, 2]}]}
    sweep = create(client, wanted)
    assert sweep["name"] == "Sweep of seed" and sweep["spec"]["ipc"] == 1 and sweep["total"] == 2


@pytest.mark.parametrize(
    ("axes", "pointer", "told"),
    [
        ([{"name": "a", "path": "/method/alfa", "values": [0.1]}], "/axes/0/path", "Did you mean /method/alpha?"),
        ([{"name": "a", "path": "alpha", "values": [0.1]}], "/axes/0/path", "no field 'alpha'"),
        ([{"name": "a", "path": "/teachers/3/epochs", "values": [1]}], "/axes/0/path", "/teachers/0/epochs"),
        ([ALPHA | {"values": []}], "/axes/0/values", "at least 1"),
        ([ALPHA | {"values": [0.2, 1.5]}], "/axes/0/values/1", "In the cell alpha 1.5: method.alpha is 1.5"),
        ([ALPHA | {"values": [0.2, 0.2]}], "/axes/0/values/1", "'0.2' twice"),
        ([{"name": "s", "path": "/seed", "values": [1, 1.0]}], "/axes/0/values/1", "twice"),
        ([ALPHA, ALPHA], "/axes/1/name", "Two axes"),
        ([{"name": "a"}], "/axes/0", "Give path and values, or variants"),
        ([ALPHA | {"variants": RECIPE["variants"]}], "/axes/0", "not both"),
        ([{"name": "i", "path": "/ipc", "values": [1, 9000]}], "/axes/0/values/1", "5000"),
        ([{"name": "i", "path": "/ipc", "values": [1, 1000]}], "/axes/0/values/1", "training images"),
        (
            [{"name": "r", "variants": [{"title": "x", "patch": {"method": {"alfa": 1}}}]}],
            "/axes/0/variants/0/patch/method/alfa",
            "There is no field method.alfa",
        ),
        ([{"name": "b", "path": "/method/budgets", "values": [[2, 0]]}], "/axes/0/values/0/1", "method.budgets.1"),
        ([{"name": "i", "path": "/ipc", "values": list(range(1, 202))}], "/axes", "201 = 201 jobs"),
        ([{"name": n, "path": "/seed", "values": list(range(15))} for n in "ab"], "/axes", "15 x 15 = 225"),
        ([ALPHA, {"name": "r", "variants": [RDED]}], "/axes/0/path", "In every cell"),
        ([{"name": "t", "variants": [{"title": title, "patch": {}} for title in "ab"]}], "/axes", "same job as the cell t a"),
        ([], "/axes", "at least 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    client: TestClient, world: World, axes: list[dict[str, Any]], pointer: str, told: str
) -> None:
    [error] = refused(client, world, {"spec": spec_body(), "axes": axes})
    assert error["pointer"] == pointer and told in f"{error['detail']} {error['hint']}"


def test_a_wrong_base_is_told_once(client: TestClient, world: World) -> None:
    elsewhere = {"source": "folder", "path": "/nowhere"}
    [error] = refused(client, world, body(dataset=elsewhere))
    assert error["pointer"] == "/spec/dataset/path" and error["detail"].startswith("In every cell: ")


def test_several_cells_with_one_fault_are_one_error(client: TestClient, world: World) -> None:
    [error] = refused(client, world, body({"name": "alpha", "path": "/method/alpha", "values": [0.5, 7]}, RECIPE))
    assert error["detail"].startswith("In 2 cells, first alpha 7, recipe FADRM: method.alpha is 7")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_are_none_are_refused(client: TestClient, number: str) -> None:
    text = '{"preset": "demo", "axes": [{"name": "a", "path": "/method/alpha", "values": [NUMBER]}]}'
    answer = client.post(
        "/api/v1/sweeps", content=text.replace("NUMBER", number), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"].startswith("/axes/0/values")


def test_sweeps_read_alike_on_both_databases(any_world: World) -> None:
    owner = any_world.person("owner")
    wanted = sweeps.SweepIn.model_validate(body())
    sweep, is_new = sweeps.submit(any_world.services, owner.user, wanted, "k")
    assert is_new and any_world.count(Step) > 40
    sweeps.cancel(any_world.services, owner.user, sweep.id)
    with any_world.services.database.read() as session:
        [summary] = views.page_of_sweeps(session, owner.user).data
        found = views.sweep_out(session, sweeps.get(session, owner.user, sweep.id))
    assert summary.jobs == {"cancelled": 4} and summary.started_at is None and summary.finished_at is not None
    assert summary.finished_at.tzinfo is not None and [cell.state for cell in found.cells] == ["cancelled"] * 4


def test_the_sweep_in_the_documentation_can_be_planned(client: TestClient) -> None:
    text, *_ = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/howto/sweep.md").read_text(), flags=re.DOTALL)
    answer = client.post("/api/v1/sweeps/plan", json=yaml.safe_load(text))
    assert answer.status_code == 200 and len(answer.json()["jobs"]) == 6
