"""What is taken along from a job's page: tables that other programs read, and commands that make the job again."""

from __future__ import annotations

import ast
import csv
import io
import json
import shlex
from typing import Any

import yaml
from starlette.testclient import TestClient

from app.pages import copies
from app.views.results import ResultsOut, RowOut
from engine.presets import DEMO, PRESETS
from tests.pages.site import SMALL, Site
from tests.pages.test_pages import csrf_of


def row(**more: Any) -> RowOut:
    facts: dict[str, Any] = {
        "subject": "distilled", "title": "Distilled & mixed", "student": "resnet18", "labels": "soft", "ipc": 10, "n": 3, "planned": 3,
        "mean": 61.234, "std": 0.5, "last": [], "chosen": [], "chosen_mean": None, "best": [], "best_mean": 62.0, "runs": [],
    }  # fmt: skip
    return RowOut(**facts | more)


def results(*rows: RowOut) -> ResultsOut:
    empty: dict[str, Any] = {key: [] for key in ("teachers", "verdicts", "full_data", "robustness", "continual")}
    return ResultsOut(complete=True, rows=list(rows), quick=False, **empty)


def test_the_score_card_is_copied_as_csv_markdown_and_latex() -> None:
    told = copies.tables(results(row(), row(subject="random", std=None, mean=None)))
    [head, first, second] = list(csv.reader(io.StringIO(told["CSV"])))
    assert first == ["Distilled & mixed", "ResNet-18", "soft", "10", "3", "61.23", "0.50", "62.00"]
    assert len(head) == len(second) == 8 and second[5] == ""
    assert told["Markdown"].splitlines()[2].startswith("| Distilled & mixed | ResNet-18 | soft |")
    assert "Distilled \\& mixed & ResNet-18" in told["LaTeX"] and "$61.23 \\pm 0.50$" in told["LaTeX"]


def test_every_command_holds_the_whole_job(client: TestClient, site: Site) -> None:
    job = site.job(site.submit("It's a “job”"))
    told = copies.commands(job, "http://127.0.0.1:8080/")
    wanted = {"name": job.name, "spec": job.spec}
    assert yaml.safe_load(told["fadrm"].split("<<'END'\n")[1].split("\nEND\n")[0]) == wanted
    assert json.loads(shlex.split(told["curl"].replace("\\\n", ""))[-1]) == wanted
    calls = [node for node in ast.walk(ast.parse(told["Python"])) if isinstance(node, ast.Call)]
    [loads] = [call for call in calls if ast.unparse(call.func) == "json.loads"]
    assert json.loads(ast.literal_eval(loads.args[0])) == wanted
    page = client.get(f"/jobs/{job.id}").text
    assert all(f"Submit it with {tool}" in page for tool in told)


def test_a_spec_is_shown_beside_the_preset_that_it_comes_from() -> None:
    spec = DEMO.model_dump(mode="json")
    found = copies.origin(spec)
    assert found is not None and found.preset.spec == DEMO and found.differences == ()
    changed = copies.origin(spec | {"seed": 77, "ipc": 3})
    assert changed is not None and {one.pointer: one.values for one in changed.differences} == {
        "/seed": [DEMO.seed, 77],
        "/ipc": [DEMO.ipc, 3],
    }
    assert all(
        (one := copies.origin(preset.spec.model_dump(mode="json"))) and not one.differences
        for preset in list(PRESETS.values())[:5]
    )


def test_a_job_is_renamed_on_its_page_unless_somebody_was_faster(client: TestClient, site: Site) -> None:
    job_id = site.submit("Old", SMALL)
    page = client.get(f"/jobs/{job_id}").text
    seen = page.split('name="seen" value="')[1].split('"')[0]
    posted = {"csrf": csrf_of(page), "seen": seen, "name": "New"}
    assert "<h1>New</h1>" in client.post(f"/jobs/{job_id}/rename", data=posted).text
    late = client.post(f"/jobs/{job_id}/rename", data=posted | {"name": "Newer"})
    assert late.status_code == 412 and "was changed since" in late.text and site.job(job_id).name == "New"
    assert client.post(f"/jobs/{job_id}/rename", data=posted | {"name": " "}).status_code == 422


def test_the_bar_says_what_each_stage_was_planned_to_take(client: TestClient, site: Site) -> None:
    job_id = site.submit("Planned")
    site.player.play()
    page = client.get(f"/jobs/{job_id}").text
    assert page.count("planned ") > 4 and "Planned, CPU" in page
