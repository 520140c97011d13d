"""The suites are requests that a server takes, and stand for what their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app import planning
from app.cells import Cell, cells, spec_of
from app.results.suites import METHODS, RUNS, SUITES, run_like
from app.sweeps import SweepIn
from engine.datasets import Facts
from engine.plan import StepKind, check, plan
from engine.spec import JobSpec

DATA = Path("/data")
CLASSES = {
    "tiny-imagenet-200": (200, 500, 64),
    "cifar10": (10, 5000, 32),
    "tiny10": (10, 500, 32),
    "tune10": (10, 500, 32),
}


def facts_of(data: str | None) -> Facts:
    """What planning would find, without the images."""
    classes, per_class, resolution = CLASSES.get(data or "", (10, 143, 16))
    names = tuple(f"class {index}" for index in range(classes))
    train, test = (per_class,) * classes, (50,) * classes
    return Facts(
        title="made up", classes=names, train_per_class=train, test_per_class=test, resolution=resolution, digest="d"
    )


def specs(name: str) -> dict[tuple[str, ...], JobSpec]:
    """Titles -> spec of each job of a sweep."""
    wanted = SweepIn.model_validate(RUNS[name][1].body(DATA))
    found = {}
    for cell in cells(planning.spec_of(wanted), wanted.axes):
        assert isinstance(cell, Cell), cell
        titles = (axis.titles[place] for axis, place in zip(wanted.axes, cell.at, strict=True))
        found[tuple(titles)] = spec_of(cell)
    return found


def test_the_suites_are_those_of_the_issue() -> None:
    assert {"tiny", "cifar10", "cross", "ablation", "continual", "cpu"} <= SUITES.keys()


@pytest.mark.parametrize("name", RUNS)
def test_every_job_of_every_suite_can_be_planned(name: str) -> None:
    run, jobs = RUNS[name][1], specs(name)
    facts = facts_of(run.data)
    assert len(jobs) == run.jobs == len({spec.digest() for spec in jobs.values()})
    for spec in jobs.values():
        assert not check(spec, facts)
        assert any(step.kind == StepKind.EVALUATE for step in plan(spec, facts).steps)
        assert run.data is None or spec.dataset.path == f"/data/{run.data}"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["cpu-cifar10", "cpu-cifar10-resnet", "cpu-tiny10"])
def test_the_suite_cpu_has_every_method_at_every_ipc(name: str) -> None:
    jobs = specs(name)
    assert {titles[1] for titles in jobs} == set(METHODS) and {spec.ipc for spec in jobs.values()} == {1, 10, 50}
    assert all(spec.evaluation.runs == 3 and str(spec.ipc) == titles[0] for titles, spec in jobs.items())


def test_the_suite_tiny_has_the_papers_settings() -> None:
    jobs = specs("tiny")
    plus = jobs["1", "FADRM+"]
    assert plus.teachers[0].network == "resnet18" and len(plus.teachers) == 4
    assert plus.labels.epochs == 1000 and jobs["10", "FADRM"].labels.epochs == 300
    assert jobs["50", "FADRM"].evaluation.eta == 1 and jobs["10", "RDED"].patches.difficulty == "easy"
    assert all(spec.evaluation.students == ("resnet18", "resnet50", "resnet101") for spec in jobs.values())


def test_the_suite_cross_has_the_eleven_networks_of_table_2() -> None:
    assert all(len(spec.evaluation.students) == 11 for spec in specs("cross").values())


def test_the_suite_continual_cuts_the_classes_in_five_and_ten() -> None:
    found = [spec.evaluation.continual for spec in specs("continual").values()]
    assert all(one is not None and one.steps == (5, 10) for one in found)


@pytest.mark.parametrize(
    ("titles", "is_it"),
    [
        ({"k": ["0", "1", "3", "4", "7"]}, True),
        ({"k": ["0", "1"]}, False),
        ({"j": ["0", "1", "3", "4", "7"]}, False),
    ],
)
def test_a_sweep_is_a_suites_by_its_name_and_what_it_varies(titles: dict[str, Any], is_it: bool) -> None:
    assert (run_like("digits-injections", titles) is not None) == is_it
    assert run_like("mine", titles) is None
