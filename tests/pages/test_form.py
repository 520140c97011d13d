"""The form is the spec: every field is there, and comes back as it went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.pages import form
from engine.errors import ErrorReport
from engine.methods import TITLES, Fadrm, FadrmPlus, Rded
from engine.presets import PRESETS
from engine.sources import Digits, Folder, Torchvision
from engine.spec import MOST_TEACHERS, Continual, Evaluation, JobSpec, Labels, Rates, Teacher

ROOT = Path(__file__).parents[2]
SPECS = [
    JobSpec(),
    JobSpec(dataset=Folder(path="/data/birds"), method=Rded(), flip=False, ipc=3),
    JobSpec(dataset=Folder(path="/data/digits", classes=("7", "1", "a robin, red"))),
    JobSpec(
        dataset=Torchvision(name="cifar100"),
        method=Fadrm(alpha=0.123456789, budgets=(7, 8), sizes=(24, 32), crop=False, jitter=0, betas=(0.25, 0.999)),
        teachers=(Teacher(), Teacher(network="densenet121", lr=1e-5)),
    ),
    JobSpec(
        method=FadrmPlus(rounding="floor"),
        nested=(1, 5),
        exports=("parquet", "fkd"),
        teachers=(Teacher(crop="resized"), Teacher(weights="/data/weights.safetensors")),
        labels=Labels(top_k=10, pool=50, recipe_only=True),
        evaluation=Evaluation(
            rates={"resnet50": Rates(lr=0.0005, eta=2), "resnet101": Rates(lr=1.25e-5, eta=1)},
            continual=Continual(steps=(5,), student="resnet18"),
            valid_per_class=7,
            full_data=True,
            quick=True,
        ),
    ),
    JobSpec(evaluation=Evaluation(continual=Continual())),
    JobSpec(dataset=Digits(resolution=8), evaluation={"students": [], "baselines": []}),  # type: ignore[arg-type]
]


def posted(spec: dict[str, Any]) -> dict[str, list[str]]:
    """What a browser posts of a form that shows this spec."""
    shown = form.build(spec)
    values = {shown.dataset.name: [shown.dataset.value], shown.method.name: [shown.method.value]}
    for field in shown.fields():
        if field.kind == "choices":
            values[field.name] = list(field.value or ())
        elif field.kind == "part" and field.value is not None:
            values[field.name] = ["on"]
        elif field.kind not in ("boolean", "part"):
            values[field.name] = [field.text]
        elif field.kind == "boolean" and field.value:
            values[field.name] = ["on"]
    return values


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.digest()[:6])
def test_a_spec_comes_back_from_its_form_as_it_was(spec: JobSpec) -> None:
    assert JobSpec.model_validate(form.read(posted(spec.model_dump(mode="json")))) == spec


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_comes_back_from_its_form_as_it_was(name: str) -> None:
    spec = PRESETS[name].spec
    assert JobSpec.model_validate(form.read(posted(spec.model_dump(mode="json")))) == spec


def leaves(value: Any, pointer: str = "") -> set[str]:
    """Pointers of everything in a spec that is no object."""
    if isinstance(value, dict):
        if pointer == "/evaluation/rates":
            return {pointer}
        return {leaf for name, part in value.items() for leaf in leaves(part, f"{pointer}/{name}")}
    if pointer == "/teachers":
        return leaves(value[0], "/teachers/0")
    return {pointer}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.digest()[:6])
def test_every_field_of_a_spec_has_a_control(spec: JobSpec) -> None:
    shown = form.build(spec.model_dump(mode="json"))
    controls = {field.pointer for field in shown.fields()} | {shown.dataset.name, shown.method.name}
    assert leaves(spec.model_dump(mode="json")) <= controls


def test_help_bounds_and_choices_are_those_of_the_spec() -> None:
    ipc = form.build(JobSpec().model_dump(mode="json")).field("/ipc")
    assert ipc.help == JobSpec.model_fields["ipc"].description
    assert (ipc.minimum, ipc.maximum, ipc.bounds) == (1, 5000, "1 to 5000.")


def test_text_that_is_no_number_stays_for_the_spec_to_refuse() -> None:
    values = posted(JobSpec().model_dump(mode="json")) | {"/ipc": ["ten"], "/method:fadrm/budgets": ["5, x"]}
    spec = form.read(values)
    assert spec["ipc"] == "ten"
    assert spec["method"]["budgets"] == [5, "x"]


def test_lines_that_make_no_rates_stay_for_the_spec_to_refuse() -> None:
    spec = form.read(posted(JobSpec().model_dump(mode="json")) | {"/evaluation/rates": ["resnet50 fast\nnobody 1 2 3"]})
    rates = {"resnet50": {"lr": "fast"}, "nobody": {"lr": 1, "eta": 2, "number 5": 3}}
    assert spec["evaluation"]["rates"] == rates
    assert form.build(spec).field("/evaluation/rates").text.splitlines() == ["resnet50 fast", "nobody 1 2"]


def test_a_part_that_is_not_asked_for_is_left_out() -> None:
    values = posted(JobSpec().model_dump(mode="json"))
    assert values["/evaluation/continual/steps"] == ["5, 10"], "its fields are there all the same"
    assert form.read(values)["evaluation"]["continual"] is None
    assert form.read(values | {"/evaluation/continual": ["on"]})["evaluation"]["continual"]["steps"] == [5, 10]


def test_every_method_has_a_title_and_a_line_of_help() -> None:
    variants = form.build({}).method.variants
    assert {kind.value: kind.title for kind in variants} == TITLES
    assert all(kind.help and "\n" not in kind.help for kind in variants)


def test_each_kind_with_fields_has_a_rule_that_shows_them() -> None:
    rules = (ROOT / "app" / "static" / "new.css").read_text()
    shown = form.build({})
    for choice, part in ((shown.dataset, "dataset"), (shown.method, "method")):
        for kind in choice.variants:
            assert not kind.fields or f'[data-of="{part}-{kind.value}"]' in rules


def test_errors_stand_at_the_field_that_they_point_at_or_into() -> None:
    problems = [
        ErrorReport(code="x", message="too small", pointer="/method/budgets/1"),
        ErrorReport(code="x", message="one size per stage", pointer="/method"),
    ]
    shown = form.build(JobSpec().model_dump(mode="json"), problems)
    assert [error.message for error in shown.field("/method:fadrm/budgets").errors] == ["too small"]
    assert [error.message for error in shown.loose] == ["one size per stage"]


def test_a_hostile_form_makes_no_more_teachers_than_a_job_may_have() -> None:
    values = {f"/teachers/{index}/network": ["resnet18"] for index in range(500)}
    assert len(form.read(values)["teachers"]) == MOST_TEACHERS


def test_what_is_no_spec_at_all_still_makes_a_form() -> None:
    shown = form.build({"teachers": [], "dataset": {"source": "nonsense"}, "method": None})
    assert len(shown.teachers) == 1
