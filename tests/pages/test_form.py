"""The form is the spec: every field is there, and comes back as it went."""

from __future__ import annotations

from typing import Any

import pytest

from app.pages import form
from engine.errors import ErrorReport
from engine.methods import Fadrm, Rded
from engine.sources import Digits, Folder, Torchvision
from engine.spec import JobSpec, Teacher

SPECS = [
    JobSpec(),
    JobSpec(dataset=Folder(path="/data/birds"), method=Rded(), flip=False, ipc=3),
    JobSpec(
        dataset=Torchvision(name="cifar100"),
        method=Fadrm(alpha=0.123456789, budgets=(7, 8), sizes=(24, 32), crop=False, jitter=0, betas=(0.25, 0.999)),
        teachers=(Teacher(), Teacher(network="densenet121", lr=1e-5)),
    ),
    JobSpec(dataset=Digits(resolution=8), evaluation={"students": [], "baselines": []}),  # type: ignore[arg-type]
]


def posted(spec: dict[str, Any]) -> dict[str, list[str]]:
    """What a browser posts of a form that shows this spec."""
    shown = form.build(spec)
    values = {shown.dataset.name: [shown.dataset.value], shown.method.name: [shown.method.value]}
    for field in shown.fields():
        if field.kind == "choices":
            values[field.name] = list(field.value or ())
        elif field.kind != "boolean":
            values[field.name] = [field.text]
        elif field.value:
            values[field.name] = ["on"]
    return values


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.digest()[:6])
def test_a_spec_comes_back_from_its_form_as_it_was(spec: JobSpec) -> None:
    assert JobSpec.model_validate(form.read(posted(spec.model_dump(mode="json")))) == spec


def leaves(value: Any, pointer: str = "") -> set[str]:
    """Pointers of everything in a spec that is no object."""
    if isinstance(value, dict):
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
    assert len(form.read(values)["teachers"]) == form.MAX_TEACHERS


def test_what_is_no_spec_at_all_still_makes_a_form() -> None:
    shown = form.build({"teachers": [], "dataset": {"source": "nonsense"}, "method": None})
    assert len(shown.teachers) == 1
