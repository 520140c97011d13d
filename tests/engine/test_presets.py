"""Presets are jobs that can be accepted as they are."""

from __future__ import annotations

import pytest

from engine.datasets import describe
from engine.methods import Fadrm
from engine.plan import StepKind, check, plan
from engine.presets import PRESETS
from engine.sources import Folder


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_for(name: str) -> None:
    preset = PRESETS[name]
    assert preset.name == name and preset.title and preset.note


@pytest.mark.parametrize("name", [name for name in PRESETS if not isinstance(PRESETS[name].spec.dataset, Folder)])
def test_a_preset_can_be_planned(name: str) -> None:
    spec = PRESETS[name].spec
    assert check(spec, describe(spec.dataset)) == []
    assert plan(spec, describe(spec.dataset)).steps


def test_the_demo_needs_no_network_and_little_work() -> None:
    spec = PRESETS["demo"].spec
    steps = plan(spec, describe(spec.dataset)).steps
    assert spec.dataset.source == "digits" and not spec.flip
    assert sum(step.flop for step in steps) < 3e12
    assert {step.kind for step in steps} == set(StepKind) - {StepKind.OBSERVE, StepKind.CONTINUAL, StepKind.EXPORT}


@pytest.mark.parametrize(
    ("name", "lr", "budgets", "statistics"),
    [("cifar100-ipc10", 0.25, (500,) * 4, "batch"), ("tiny-imagenet-ipc10", 0.01, (500,) * 2, "running")],
)
def test_official_settings_are_those_of_the_authors_code(
    name: str, lr: float, budgets: tuple[int, ...], statistics: str
) -> None:
    spec = PRESETS[name].spec
    assert isinstance(spec.method, Fadrm)
    assert (spec.method.lr, spec.method.budgets) == (lr, budgets)
    assert (spec.method.alpha, spec.method.r_bn, spec.method.first_bn) == (0.5, 0.01, 10)
    assert (spec.labels.batch_size, spec.labels.statistics, spec.evaluation.temperature) == (16, statistics, 20)
    assert (spec.evaluation.lr, spec.evaluation.eta, spec.evaluation.weight_decay) == (0.001, 2, 0.01)
    assert spec.teachers[0].network == spec.evaluation.students[0] == "resnet18"
