"""Whatever a job asks of its labels and students: nested sets, labels kept by budget, classes in groups, the upper bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine import arrays
from engine.datasets import describe
from engine.feasibility import impossibilities
from engine.methods import RandomReal
from engine.params import TeachParams
from engine.plan import Step, StepKind, plan
from engine.plan.students import UPPER_BOUND
from engine.spec import Continual, JobSpec, Teacher
from tests.engine.jobs import SMALL, SPEC, Job, carried_out, contents, interrupted

FULL = SPEC.evaluation.model_copy(update={"baselines": ("random",), "runs": 1, "labels": ("soft",)})


def _with(labels: dict[str, Any] | None = None, evaluation: dict[str, Any] | None = None, **changes: Any) -> JobSpec:
    return SPEC.model_copy(
        update={
            "labels": SPEC.labels.model_copy(update=labels or {}),
            "evaluation": FULL.model_copy(update=evaluation or {}),
            **changes,
        }
    )


def _accuracies(job: Job) -> list[Any]:
    return [job.store.manifest(key).result["curve"] for row in job.plan.rows for key in row.runs]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Labels kept in full."""
    return carried_out(_with(), tmp_path_factory.mktemp("stored"))


def test_labels_made_as_they_are_needed_teach_as_those_that_were_kept(stored: Job, tmp_path: Path) -> None:
    again = carried_out(_with(labels={"recipe_only": True}), tmp_path)
    assert _accuracies(again) == _accuracies(stored)
    assert not list(again.folder(StepKind.RELABEL).glob("logits.npy"))


def test_a_pool_is_shown_again_alike_whether_kept_or_made(tmp_path: Path) -> None:
    kept = carried_out(_with(labels={"pool": 2}), tmp_path / "kept")
    made = carried_out(_with(labels={"pool": 2, "recipe_only": True}), tmp_path / "made")
    assert arrays.read(kept.folder(StepKind.RELABEL) / "logits.npy").shape[0] == 2
    assert _accuracies(made) == _accuracies(kept)


@pytest.mark.parametrize("labels", [{}, {"top_k": 3}, {"pool": 2}, {"recipe_only": True}, {"pool": 3, "top_k": 2}])
def test_the_size_that_is_told_beforehand_is_the_size_on_the_disk(labels: dict[str, Any], tmp_path: Path) -> None:
    spec = _with(labels=labels, evaluation={"students": (), "baselines": ()})
    job = carried_out(spec, tmp_path)
    real = sum(file.stat().st_size for file in job.folder(StepKind.RELABEL).glob("*.npy"))
    heads = 128 * len(list(job.folder(StepKind.RELABEL).glob("*.npy")))
    assert job.step(StepKind.RELABEL).size_bytes == pytest.approx(real - heads, rel=0.1)


def test_few_classes_kept_of_labels_that_are_not_kept_is_refused() -> None:
    spec = _with(labels={"recipe_only": True, "top_k": 3})
    (error,) = impossibilities(spec, describe(spec.dataset))
    assert error.report.pointer == "/labels/top_k"


def test_the_epoch_is_chosen_by_images_that_nothing_was_made_from(stored: Job) -> None:
    result = stored.store.manifest(stored.plan.rows[0].runs[0]).result
    assert result["top1_chosen_pct"] == dict(result["curve"])[result["chosen_epoch"]]
    without = _with(evaluation={"valid_per_class": 0})
    step = next(step for step in plan(without, describe(without.dataset)).steps if step.kind == StepKind.EVALUATE)
    assert step.params["valid_per_class"] == 0


def test_a_smaller_set_is_the_first_of_each_class_with_labels_and_figures_of_its_own(tmp_path: Path) -> None:
    job = carried_out(_with(nested=(1,)), tmp_path)
    assert [row.ipc for row in job.plan.rows] == [2, 2, 1, 1]
    counts = {
        step.params["take"]: job.store.manifest(step.key).result["images"]
        for step in job.plan.steps
        if step.kind == StepKind.RELABEL
    }
    assert counts == {1: 10, 2: 20}
    packages = [step for step in job.plan.steps if step.kind == StepKind.PACKAGE]
    assert sorted(step.params["ipc"] for step in packages) == [1, 2]


def test_classes_come_in_groups_and_an_interruption_changes_nothing(tmp_path: Path) -> None:
    job = carried_out(_with(evaluation={"continual": Continual(steps=(3,))}), tmp_path)
    step = job.step(StepKind.CONTINUAL)
    curve = job.store.manifest(step.key).result["curve"]
    assert [seen for seen, _ in curve] == [4, 7, 10] and all(0 <= top1 <= 100 for _, top1 in curve)
    assert {row.subject for row in job.plan.continual} == {"distilled", "random"}
    out, attempts = interrupted(step, job.store, every=4)
    assert attempts > 2 and contents(out) == contents(job.folder(StepKind.CONTINUAL))


def _taught(spec: JobSpec) -> list[Step]:
    return [step for step in plan(spec, describe(spec.dataset)).steps if step.kind == StepKind.TEACH]


def test_every_upper_bound_is_trained_alike_whoever_teaches() -> None:
    teacher, *bounds = _taught(_with(evaluation={"full_data": True, "students": (SMALL, "convnet3")}))
    assert teacher.title == f"Train teacher {SMALL}" and not teacher.params["teacher"]["cutmix"]
    assert [step.title for step in bounds] == [f"Train {name} on all real images" for name in (SMALL, "convnet3")]
    first, second = ({**step.params["teacher"], "network": None} for step in bounds)
    assert first == second and (first["epochs"], first["crop"], first["cutmix"]) == (300, "resized", True)


def test_a_teacher_trained_by_the_recipe_of_the_upper_bound_is_one() -> None:
    teachers = (Teacher.model_validate({"network": SMALL, **UPPER_BOUND}),)
    (both,) = _taught(_with(evaluation={"full_data": True, "students": (SMALL,)}, teachers=teachers))
    assert both.params["teacher"]["network"] == SMALL


def test_a_quick_look_has_hard_labels_one_run_and_a_tenth_of_the_epochs() -> None:
    spec = _with(labels={"epochs": 60}, evaluation={"quick": True, "runs": 3, "labels": ("soft", "hard")})
    planned = plan(spec, describe(spec.dataset))
    assert {(row.labels, len(row.runs)) for row in planned.rows} == {("hard", 1)}
    epochs = {step.params["plan"]["epochs"] for step in planned.steps if step.kind == StepKind.EVALUATE}
    assert epochs == {6}


def test_rates_of_a_single_student_are_its_own() -> None:
    evaluation = FULL.model_dump() | {"students": [SMALL, "convnet3"], "rates": {"convnet3": {"lr": 0.0005, "eta": 1}}}
    spec = JobSpec.model_validate(SPEC.model_dump() | {"evaluation": evaluation})
    steps = [step for step in plan(spec, describe(spec.dataset)).steps if step.kind == StepKind.EVALUATE]
    rates = {(step.params["student"], step.params["lr"], step.params["eta"]) for step in steps}
    assert rates == {(SMALL, 0.01, 2.0), ("convnet3", 0.0005, 1.0)}


def test_any_network_can_be_an_upper_bound_and_its_step_can_be_read_back() -> None:
    spec = JobSpec.model_validate(
        {"dataset": {"source": "digits", "resolution": 32}, "evaluation": {"students": ["swin_t"], "full_data": True}}
    )
    steps = [step for step in plan(spec, describe(spec.dataset)).steps if step.kind == StepKind.TEACH]
    learners = [TeachParams.model_validate(step.params).teacher for step in steps]
    assert [(learner.network, learner.optimizer) for learner in learners] == [("resnet18", "sgd"), ("swin_t", "adamw")]


def test_a_student_of_groups_must_fit_the_images() -> None:
    spec = _with(evaluation={"continual": Continual(student="convnet6")})
    assert [error.report.pointer for error in impossibilities(spec, describe(spec.dataset))] == [
        "/evaluation/continual/student"
    ]


def test_labels_that_are_made_again_cost_their_teachers_in_every_run() -> None:
    def flop(**labels: Any) -> float:
        spec = _with(labels=labels)
        steps = plan(spec, describe(spec.dataset)).steps
        return sum(step.flop for step in steps if step.kind == StepKind.EVALUATE)

    assert flop(recipe_only=True) > flop()


def test_random_images_are_not_their_own_baseline_at_any_ipc() -> None:
    spec = _with(nested=(1,), method=RandomReal())
    assert {row.subject for row in plan(spec, describe(spec.dataset)).rows} == {"distilled"}
