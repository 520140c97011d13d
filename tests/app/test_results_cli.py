"""`fadrm results`: from a suite's cost to its rows, page and release files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app import cli
from app.pages.assets import ROOT
from app.results import rows, runner
from app.results.suites import DIGITS_K, RUNS, SUITES, Suite
from app.results.suites import Run as Sweep
from fadrm import Client
from tests.app import world as worlds
from tests.app.test_cli import Run, run, served  # noqa: F401 - fixtures
from tests.app.test_client import remote  # noqa: F401 - a fixture
from tests.app.world import World
from tests.results.test_film import sheet

FEW = DIGITS_K.spec["evaluation"] | {"runs": 2, "baselines": []}
VARIANTS = [{"title": str(k), "patch": {"method": {"budgets": [100] * (k + 1)}}} for k in (1, 3)]
INJECTIONS = Sweep(
    name="injections",
    title="Injections",
    data=None,
    spec=DIGITS_K.spec | {"evaluation": FEW},
    axes=({"name": "k", "variants": VARIANTS},),
)
SMALL = Suite(name="small", title="Injections", note="", runs=(INJECTIONS,))
ROW = "injections/k-3"
HERE = Path()


class Hours:
    """A clock that goes on by an hour at every look."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 3600
        return self.seconds


@pytest.fixture(autouse=True)
def small_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUITES, "small", SMALL)
    monkeypatch.setitem(RUNS, "injections", (SMALL, INJECTIONS))


def test_a_suite_from_its_cost_to_what_a_release_shows(
    served: World,  # noqa: F811
    run: Run,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worlds, "PNG", sheet("red"))
    code, told, _ = run("results", "list")
    assert code == 0 and "cpu-tiny10" in told and "Merge ratio" in told
    code, told, _ = run("results", "plan", "small")
    assert code == 0 and "injections" in told and "GPU-hours" in told and "together" in told
    with Client() as client:
        body = INJECTIONS.body(HERE)
        client.submit_sweep(body, key=runner.key_of(body))
    served.work()
    code, _, told = run("results", "run", "small")
    assert code == 0 and "2 jobs: 2 succeeded" in told

    into, page = tmp_path / "results", tmp_path / "results.md"
    words = ("--into", str(into), "--commit", "abc1234", "--machine", "a machine")
    code, told, _ = run("results", "collect", "small", *words)
    assert code == 0 and len(told.splitlines()) == 2 and f"{ROW}.json" in told
    [found] = [row for row in rows.load(into)["injections"] if row.name == ROW]
    assert found.provenance.commit == "abc1234" and found.spec["method"]["budgets"] == [100] * 4
    score = found.score()
    assert score is not None and (score.mean, score.best_mean, score.runs, score.last) == (90, 91, 2, [90, 90])
    assert found.ends["recover.loss"] == pytest.approx(1.7) and found.teachers[0].top1_pct == 97.5

    page.write_text("<!-- results: injections -->\n<!-- end -->\nProse.\n")
    code, told, _ = run("results", "draw", "--page", str(page), "--rows", str(into))
    assert code == 0 and "| 3 | 90.0 ± 0.0 |" in page.read_text() and page.read_text().endswith("Prose.\n")

    code, told, _ = run("results", "artifact", ROW, "--to", str(tmp_path / "release"))
    folder = tmp_path / "release" / "injections-k-3"
    assert code == 0 and (folder / "film.webp").read_bytes()[8:12] == b"WEBP"
    assert json.loads((folder / "row.json").read_text())["values"] == {"k": "3"}
    sums = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert len(sums) == 3 and len(list(folder.iterdir())) == 4


def test_a_piece_pauses_what_it_does_not_finish_and_the_next_one_goes_on(world: World, remote: Client) -> None:  # noqa: F811
    told: list[str] = []
    piece = {"minutes": 10.0, "told": told.append, "look_s": 0.0}
    assert not runner.run(remote, SMALL, HERE, **piece, clock=Hours())  # type: ignore[arg-type]
    [sweep] = remote.sweeps().data
    assert sweep.jobs == {"paused": 2} and told[-1] == "All rests. The same command goes on."

    assert runner.run(remote, SMALL, HERE, minutes=None, told=lambda _: world.work(), look_s=0.0)
    assert [one.id for one in remote.sweeps().data] == [sweep.id]


def test_what_was_cancelled_is_tried_again(world: World, remote: Client) -> None:  # noqa: F811
    body = INJECTIONS.body(HERE)
    sweep = remote.submit_sweep(body, key=runner.key_of(body))
    remote.cancel_sweep(sweep.id)
    assert runner.run(remote, SMALL, HERE, minutes=None, told=lambda _: world.work(), look_s=0.0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plan", "none"), "There is no suite 'none'"),
        (("run", "cpu"), "cpu-cifar10 needs real images"),
        (("collect", "small", "--sweep", "injections"), "names no sweep"),
        (("artifact", "injections/k-3"), "This server has no row"),
        (("artifact", "nothing"), "This server has no row"),
    ],
)
def test_what_cannot_be_done_is_said(served: World, run: Run, words: tuple[str, ...], says: str) -> None:  # noqa: F811
    code, _, told = run("results", *words)
    assert code == cli.REFUSED and says in told


def test_another_sweep_is_not_taken_for_the_suites(served: World, run: Run, tmp_path: Path) -> None:  # noqa: F811
    with Client() as client:
        body = INJECTIONS.body(HERE)
        other = client.submit_sweep(body | {"axes": [{"name": "seed", "path": "/seed", "values": [1]}]})
    code, told, also = run("results", "collect", "small", "--into", str(tmp_path), "--commit", "a")
    assert code == 0 and not told and "this server has no such sweep" in also
    code, _, told = run("results", "collect", "small", "--commit", "a", "--sweep", f"injections={other.id}")
    assert code == cli.REFUSED and "varies seed: 1" in told


def test_the_page_needs_a_mark_for_every_run(run: Run, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.md"
    page.write_text("")
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "rows")
    code, _, told = run("results", "draw", "--page", str(page), "--rows", str(tmp_path / "rows"))
    assert code == cli.REFUSED and "no mark for" in told and "<!-- results: RUN -->" in told
