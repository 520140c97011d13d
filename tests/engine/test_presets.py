"""Presets are jobs that can be accepted as they are, and the paper's are its tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.datasets import Facts, describe
from engine.methods import Fadrm, FadrmPlus, Optimised
from engine.plan import StepKind, check, plan
from engine.presets import PRESETS
from engine.presets.paper import COLLECTIONS, Collection
from engine.sources import Digits, Folder
from engine.spec import JobSpec

IPCS = (1, 10, 50)
GPU_FLOP_PER_HOUR = 2e13 * 3600  # as app.estimates has it
STUDENTS = ("resnet18", "resnet50", "resnet101")
# As the authors' train_fkd.py has it: by student and ipc, learning rate and eta.
RATES = {
    "cifar100": ("5,2 10,2 10,1", "10,1 10,2 10,1", "5,1 5,1 5,1"),
    "tiny-imagenet": ("10,2 10,2 10,1", "5,2 5,2 5,1", "5,2 5,2 5,1"),
    "imagewoof": ("5,2 5,1 10,2", "5,2 50,1 5,1", "10,1 5,2 5,1"),
    "imagenette": ("5,2 5,1 5,2", "5,2 5,1 5,1", "5,2 5,2 10,2"),  # ResNet-101 at 10: Table 15, the code has none
    "imagenet-1k": ("10,2 10,2 10,1", "5,2 10,2 10,1", "35,2 10,2 5,1"),
}
# (collection, ipc, student) -> what the tables say instead.
TABLES_SAY = {("imagewoof", 10, "resnet50"): (0.0005, 1), ("imagenet-1k", 1, "resnet101"): (0.0005, 2)}
# Tables 10, 12, 14, 16: epochs, batch, learning rate, crop.
TEACHERS = {
    "cifar100": (50, 128, 0.1, "padded"),
    "tiny-imagenet": (150, 64, 0.1, "padded"),
    "imagenette": (300, 128, 0.01, "resized"),
    "imagewoof": (50, 128, 0.1, "resized"),
}
EPOCHS = {"cifar100": (1000, 1000, 1000), "tiny-imagenet": (1000, 300, 300)}  # 300 for all others
ROWS = [(collection.name, ipc) for collection in COLLECTIONS for ipc in IPCS]
PAPER = [name for name in PRESETS if name.endswith(("-paper", "-official"))]


def facts_of(name: str) -> Facts:
    """What planning would find, without the images."""
    known = {collection.title: collection.facts for collection in COLLECTIONS}
    return known.get(PRESETS[name].group) or describe(PRESETS[name].spec.dataset)


def spec_of(collection: str, ipc: int, method: str, source: str) -> JobSpec:
    """A row as the code has it, which is the tables' row where they agree."""
    name = f"{collection}-ipc{ipc}-{method}"
    return PRESETS[f"{name}-{source}" if f"{name}-{source}" in PRESETS else f"{name}-paper"].spec


def rates_of(spec: JobSpec, student: str) -> tuple[float, float]:
    rates = spec.evaluation.rates.get(student, spec.evaluation)
    return rates.lr, rates.eta


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_says_what_it_is_for_and_can_be_planned(name: str) -> None:
    preset, facts = PRESETS[name], facts_of(name)
    assert preset.name == name and preset.group and preset.title and preset.note.endswith(".")
    assert JobSpec.model_validate(preset.spec.model_dump(mode="json")) == preset.spec
    assert check(preset.spec, facts) == []
    assert plan(preset.spec, facts).steps


def test_titles_are_told_apart() -> None:
    assert len({preset.title for preset in PRESETS.values()}) == len(PRESETS)


def test_the_demo_needs_no_network_and_little_work() -> None:
    spec = PRESETS["demo"].spec
    steps = plan(spec, describe(spec.dataset)).steps
    assert isinstance(spec.dataset, Digits) and not spec.flip
    assert sum(step.flop for step in steps) < 3e12
    assert {step.kind for step in steps} == set(StepKind) - {StepKind.OBSERVE, StepKind.CONTINUAL, StepKind.EXPORT}


@pytest.mark.parametrize(("collection", "ipc"), ROWS)
@pytest.mark.parametrize("method", ["fadrm", "fadrm-plus"])
def test_students_are_trained_as_the_tables_and_the_code_say(collection: str, ipc: int, method: str) -> None:
    for student, code in zip(STUDENTS, RATES[collection], strict=True):
        lr, eta = map(float, code.split()[IPCS.index(ipc)].split(","))
        in_code: Any = (pytest.approx(lr / 10_000), eta)
        in_tables: Any = TABLES_SAY.get((collection, ipc, student), in_code)
        assert rates_of(spec_of(collection, ipc, method, "paper"), student) == in_tables
        assert rates_of(spec_of(collection, ipc, method, "official"), student) == in_code


@pytest.mark.parametrize(("collection", "ipc"), ROWS)
def test_tables_share_what_table_8_says(collection: str, ipc: int) -> None:
    for method in ("fadrm", "fadrm-plus"):
        spec = spec_of(collection, ipc, method, "paper")
        assert isinstance(spec.method, Fadrm | FadrmPlus)
        assert (spec.method.lr, spec.method.budgets, spec.method.betas) == (0.25, (500,) * 4, (0.5, 0.9))
        assert (spec.method.alpha, spec.method.r_bn, spec.method.first_bn) == (0.5, 0.01, 10)
        assert (spec.labels.batch_size, spec.labels.statistics, spec.evaluation.temperature) == (16, "batch", 20)
        assert spec.labels.epochs == EPOCHS.get(collection, (300,) * 3)[IPCS.index(ipc)]
        assert spec.evaluation.students == STUDENTS and spec.evaluation.weight_decay == 0.01
        assert spec.method.recipe(facts_of(f"{collection}-ipc{ipc}-{method}-paper").resolution).sizes == (
            (200, 224, 200, 224) if collection.startswith("image") else (spec.dataset.resolution,) * 4
        )


@pytest.mark.parametrize(("collection", "ipc"), ROWS)
def test_teachers_are_those_of_the_tables(collection: str, ipc: int) -> None:
    single, several = (spec_of(collection, ipc, method, "paper") for method in ("fadrm", "fadrm-plus"))
    shuffle = "shufflenet_v2_x1_0" if collection.startswith("image") else "shufflenet_v2_x0_5"
    assert [teacher.network for teacher in single.teachers] == ["resnet18"]
    assert {teacher.network for teacher in several.teachers} == {"resnet18", "densenet121", shuffle, "mobilenet_v2"}
    for teacher in (*single.teachers, *several.teachers):
        if collection == "imagenet-1k":
            assert teacher.weights == "torchvision"
        else:
            found = (teacher.epochs, teacher.batch_size, teacher.lr, teacher.crop)
            assert found == TEACHERS[collection] and teacher.weight_decay == 1e-4 and teacher.optimizer == "sgd"


@pytest.mark.parametrize("ipc", IPCS)
def test_the_code_of_tiny_imagenet_with_one_teacher_goes_its_own_way(ipc: int) -> None:
    spec = PRESETS[f"tiny-imagenet-ipc{ipc}-fadrm-official"].spec
    assert isinstance(spec.method, Fadrm)
    assert (spec.method.lr, spec.method.budgets) == (0.01, (500, 500))
    assert (spec.labels.statistics, spec.labels.epochs) == ("running", 300)


@pytest.mark.parametrize("ipc", IPCS)
def test_the_code_of_imagenette_steps_less_and_batches_are_of_ten(ipc: int) -> None:
    nette, woof = (PRESETS[f"{name}-ipc{ipc}-fadrm-official"].spec for name in ("imagenette", "imagewoof"))
    assert isinstance(nette.method, Fadrm) and isinstance(woof.method, Fadrm)
    assert (nette.method.lr, woof.method.lr) == (0.05, 0.25)
    assert nette.labels.batch_size == woof.labels.batch_size == 10


@pytest.mark.parametrize(
    ("collection", "networks"),
    [
        ("tiny-imagenet", {"resnet18", "shufflenet_v2_x0_5", "mobilenet_v2"}),
        ("imagenet-1k", {"resnet18", "shufflenet_v2_x1_0", "mobilenet_v2", "alexnet"}),
    ],
)
def test_the_code_has_no_densenet_at_one_image_a_class(collection: str, networks: set[str]) -> None:
    preset = PRESETS[f"{collection}-ipc1-fadrm-plus-official"]
    assert {teacher.network for teacher in preset.spec.teachers} == networks
    assert "DenseNet" in preset.note


def test_where_the_code_agrees_there_is_one_row_only() -> None:
    assert not [name for name in PAPER if name.startswith("cifar100") and name.endswith("official")]
    assert len(PAPER) == 30 + 18


@pytest.mark.parametrize("name", [name for name in PAPER if name.endswith("-official")])
def test_the_code_rounds_down(name: str) -> None:
    method = PRESETS[name].spec.method
    assert isinstance(method, Optimised) and method.rounding == "floor"


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.name)
def test_the_hours_of_a_note_are_those_of_the_estimate(collection: Collection) -> None:
    for ipc, hours in zip(IPCS, collection.gpu_hours, strict=True):
        steps = plan(PRESETS[f"{collection.name}-ipc{ipc}-fadrm-paper"].spec, collection.facts).steps
        assert 0.5 < sum(step.flop for step in steps) / GPU_FLOP_PER_HOUR / hours < 2


def test_every_method_is_there_on_one_small_set() -> None:
    small = [preset.spec for name, preset in PRESETS.items() if name.startswith("cifar10-small")]
    assert len({spec.method.method for spec in small}) == 11
    assert all(spec.evaluation == small[0].evaluation and spec.labels == small[0].labels for spec in small)


@pytest.mark.parametrize(
    ("resolution", "sizes", "jitter", "crop"),
    [
        (32, (32,) * 4, 4, "padded"),
        (64, (64,) * 4, 4, "padded"),
        (128, (128,) * 4, 32, "resized"),
        (224, (200, 224, 200, 224), 32, "resized"),
    ],
)
def test_any_other_set_is_treated_as_its_resolution_asks(
    resolution: int, sizes: tuple[int, ...], jitter: int, crop: str
) -> None:
    facts = replace(COLLECTIONS[0].facts, resolution=resolution)
    spec = JobSpec(dataset=Folder(path="/data/birds"))
    assert check(spec, facts) == []
    steps = {step.kind: step.params for step in plan(spec, facts).steps}
    assert steps[StepKind.RECOVER]["recipe"]["sizes"] == list(sizes)
    assert steps[StepKind.RECOVER]["recipe"]["jitter"] == jitter
    assert steps[StepKind.TEACH]["teacher"]["crop"] == crop
