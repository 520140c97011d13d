"""Sweeps from the command line and by the client."""

from __future__ import annotations

import json
from pathlib import Path

from app import cli
from fadrm import Client
from tests.app.test_cli import Run, run, served  # noqa: F401 - fixtures
from tests.app.test_client import remote  # noqa: F401 - a fixture
from tests.app.test_sweeps import ALPHA, body
from tests.app.world import World


def test_a_sweep_from_submission_to_table(served: World, run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "sweep.yaml"
    file.write_text(json.dumps(body(ALPHA)))
    code, told, _ = run("sweep", "plan", str(file))
    assert code == 0 and "alpha 0.8" in told and "more without sharing" in told
    code, sweep_id, told = run("sweep", "submit", str(file))
    sweep_id = sweep_id.strip()
    assert code == 0 and sweep_id.startswith("swp_") and "Merge ratio, 2 jobs" in told
    served.work()
    code, told, _ = run("sweep", "show", sweep_id)
    assert (
        code == 0 and "0.8" in told and "90.0 ± 0.0 / 91.0" in told and "2 of 2 jobs have ended: 2 succeeded." in told
    )
    code, told, _ = run("sweep", "show", sweep_id, "--json")
    assert code == 0 and len(json.loads(told)["rows"]) == 2
    assert json.loads(run("sweep", "list", "--json")[1])["data"][0]["id"] == sweep_id
    code, told, _ = run("sweep", "list")
    assert code == 0 and sweep_id in told and "2 of 2" in told
    code, _, told = run("sweep", "cancel", sweep_id)
    assert code == cli.REFUSED and "have ended already" in told


def test_a_wrong_axis_is_told_with_its_place(served: World, run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "sweep.json"
    file.write_text(json.dumps(body({"name": "a", "path": "/alpha", "values": [1]})))
    code, _, told = run("sweep", "submit", str(file))
    assert code == cli.REFUSED and "/axes/0/path" in told and "no field '/alpha'" in told


def test_the_client_submits_waits_and_reads(remote: Client) -> None:  # noqa: F811
    assert remote.plan_sweep(body(ALPHA)).shared > 0
    sweep = remote.submit_sweep(body(ALPHA), key="k")
    assert remote.submit_sweep(body(ALPHA), key="k").id == sweep.id == remote.sweeps().data[0].id
    assert remote.cancel_sweep(sweep.id).state == "cancelled"
    assert remote.wait_for_sweep(sweep.id).ended == 2
    assert [row[2] for row in remote.sweep_table(sweep.id).rows] == ["0.2", "0.8"]


def test_a_file_that_is_no_sweep_is_told_what_one_has(served: World, run: Run, tmp_path: Path) -> None:  # noqa: F811
    file = tmp_path / "sweep.yaml"
    file.write_text("base: {preset: demo}\naxes: []\n")
    code, _, told = run("sweep", "plan", str(file))
    assert code == cli.REFUSED and "`spec` or `preset` is missing" in told and "A sweep has" in told
    file.write_text("preset: demo\naxes: []\n")
    code, _, told = run("submit", str(file))
    assert code == cli.REFUSED and "fadrm sweep submit" in told
