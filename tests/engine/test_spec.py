"""A spec says everything, refuses what it does not know, and is the same after any journey."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from engine.methods import Edc, Fadrm, Patches, Rded
from engine.params import SelectParams
from engine.spec import JobSpec, sha256_of


def test_an_empty_spec_is_a_whole_one() -> None:
    spec = JobSpec.model_validate({})
    assert spec.ipc == 10 and spec.method.method == "fadrm" and spec.dataset.source == "digits"


@pytest.mark.parametrize("method", [Rded(), Edc()])
def test_rded_and_edc_take_the_easiest_crops_unless_told_otherwise(method: Rded | Edc) -> None:
    spec = {"method": method.model_dump()}
    assert JobSpec.model_validate(spec | {"patches": {"candidates": 20}}).patches.difficulty == "easy"
    assert JobSpec(method=method).patches.difficulty == "easy" and JobSpec().patches.difficulty == "medium"
    assert JobSpec.model_validate(spec | {"patches": {"difficulty": "hard"}}).patches.difficulty == "hard"


@pytest.mark.parametrize(("resolution", "factor"), [(32, 1), (64, 1), (127, 1), (128, 2), (224, 2)])
def test_rded_tiles_four_crops_where_images_are_large_and_fadrm_never_does(resolution: int, factor: int) -> None:
    assert JobSpec().patches_of("rded", resolution).factor == factor
    assert JobSpec().patches_of("patches", resolution).factor == 1
    assert {JobSpec(method=method).patches_of("patches", resolution).factor for method in (Rded(), Edc())} == {factor}


@pytest.mark.parametrize("kind", ["rded", "patches"])
def test_tiles_that_a_spec_names_hold_for_everyone(kind: Literal["rded", "patches"]) -> None:
    for factor in (1, 2):
        for method in (Fadrm(), Rded()):
            spec = JobSpec(method=method, patches=Patches(factor=factor))
            assert spec.patches_of(kind, 32).factor == spec.patches_of(kind, 224).factor == factor


def test_a_step_is_told_how_many_tiles_an_image_has_and_decides_nothing() -> None:
    told = {"choice": "patches", "ipc": 1, "valid_per_class": 0, "seed": 0, "precision": "fp32"}
    settled = JobSpec().patches_of("rded", 224)
    assert SelectParams.model_validate(told | {"patches": settled.model_dump()}).patches == settled
    with pytest.raises(ValidationError, match="factor"):
        SelectParams.model_validate(told | {"patches": Patches().model_dump()})


def test_it_survives_json() -> None:
    spec = JobSpec.model_validate({"ipc": 3, "method": {"method": "fadrm", "budgets": [5, 5]}})
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("spec", "place", "words"),
    [
        ({"ipcs": 3}, ("ipcs",), "Extra inputs"),
        ({"method": {"method": "fadrm", "alfa": 1}}, ("method", "fadrm", "alfa"), "Extra inputs"),
        ({"method": {"method": "magic"}}, ("method",), "'fadrm', 'fadrm+'"),
        ({"ipc": 0}, ("ipc",), "greater than or equal to 1"),
        ({"ipc": "many"}, ("ipc",), "valid integer"),
        ({"method": {"method": "fadrm", "alpha": 1.5}}, ("method", "fadrm", "alpha"), "less than or equal to 1"),
        ({"method": {"method": "fadrm", "sizes": [32], "budgets": [1, 2]}}, ("method", "fadrm"), "one size per stage"),
        ({"teachers": []}, ("teachers",), "at least 1"),
        ({"evaluation": {"labels": []}}, ("evaluation", "labels"), "at least 1"),
        ({"method": {"method": "fadrm", "budgets": [0]}}, ("method", "fadrm", "budgets", 0), "greater than or equal"),
        ({"teachers": [{"network": "vgg"}]}, ("teachers", 0, "network"), "'vgg' is no network this engine knows"),
        ({"evaluation": {"students": ["resnet18", "resnet18"]}}, ("evaluation", "students"), "names something twice"),
        ({"dataset": {"source": "folder"}}, ("dataset", "folder", "path"), "Field required"),
        ({"precision": "int8"}, ("precision",), "'auto', 'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_a_mistake_is_named_where_it_is(spec: dict[str, Any], place: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(spec)
    (error,) = caught.value.errors()
    assert error["loc"] == place and words in error["msg"]


def test_a_spec_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        JobSpec().ipc = 5  # type: ignore[misc]


def test_the_digest_knows_every_value_and_no_order() -> None:
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
    assert JobSpec().digest() != JobSpec(seed=1).digest()
    assert JobSpec(ipc=10).digest() == JobSpec().digest()


def test_every_field_of_the_form_says_its_bounds() -> None:
    schema = JobSpec.model_json_schema()
    fadrm = schema["$defs"]["Fadrm"]["properties"]
    assert (fadrm["alpha"]["minimum"], fadrm["alpha"]["maximum"], fadrm["alpha"]["default"]) == (0, 1, 0.5)
    assert schema["properties"]["teachers"]["minItems"] == fadrm["budgets"]["minItems"] == 1
    assert "resnet18" in schema["$defs"]["Teacher"]["properties"]["network"]["enum"]
