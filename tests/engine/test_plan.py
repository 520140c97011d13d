"""From a spec to its graph: equal work has equal keys, and a change reaches only what it touches."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.datasets import describe
from engine.errors import SpecInvalid
from engine.methods import Fadrm, FadrmPlus, Method, Patches, RandomReal, Rded
from engine.plan import Plan, StepKind, another_form, check, plan
from engine.sources import Digits, Folder
from engine.spec import Evaluation, Export, JobSpec, Labels, Resources, Teacher
from tests.engine.jobs import SPEC
from tests.engine.pictures import write_set

FACTS = describe(SPEC.dataset)


def _plan(spec: JobSpec) -> Plan:
    return plan(spec, describe(spec.dataset))


def _kinds_that_differ(one: JobSpec, other: JobSpec) -> set[StepKind]:
    plans = [{step.key: step.kind for step in _plan(spec).steps} for spec in (one, other)]
    return {kind for own, foreign in (plans, plans[::-1]) for key, kind in own.items() if key not in foreign}


def _evaluation(**changes: object) -> JobSpec:
    return SPEC.model_copy(update={"evaluation": Evaluation.model_validate(SPEC.evaluation.model_dump() | changes)})


def test_equal_specs_have_equal_keys() -> None:
    again = JobSpec.model_validate_json(SPEC.model_dump_json())
    assert [step.key for step in _plan(again).steps] == [step.key for step in _plan(SPEC).steps]
    assert again.digest() == SPEC.digest()


def test_every_step_comes_after_those_that_it_needs() -> None:
    seen: set[str] = set()
    for step in _plan(SPEC).steps:
        assert set(step.needs.values()) <= seen
        seen.add(step.key)
    assert _plan(SPEC).steps[-1].key == _plan(SPEC).package


USUAL = set(StepKind) - {StepKind.OBSERVE, StepKind.CONTINUAL, StepKind.EXPORT}  # the others have to be asked for
AFTER_RECOVERY = {StepKind.RECOVER, StepKind.RELABEL, StepKind.EVALUATE, StepKind.PACKAGE}


@pytest.mark.parametrize(
    ("changed", "kinds"),
    [
        (_evaluation(students=["convnet3"]), {StepKind.EVALUATE, StepKind.PACKAGE}),
        (_evaluation(lr=0.02), {StepKind.EVALUATE, StepKind.PACKAGE}),
        (_evaluation(runs=3), {StepKind.EVALUATE, StepKind.PACKAGE}),
        (SPEC.model_copy(update={"labels": Labels(epochs=7, batch_size=7)}), AFTER_RECOVERY - {StepKind.RECOVER}),
        (SPEC.model_copy(update={"method": Fadrm(budgets=(3, 3), batch=6)}), AFTER_RECOVERY),
        (
            SPEC.model_copy(update={"patches": Patches(difficulty="hard", candidates=8)}),
            AFTER_RECOVERY | {StepKind.SELECT},
        ),
        (SPEC.model_copy(update={"seed": 1}), AFTER_RECOVERY | {StepKind.SELECT}),
        (SPEC.model_copy(update={"teachers": (Teacher(seed=1),)}), USUAL - {StepKind.PREPARE}),
        (SPEC.model_copy(update={"dataset": Digits(resolution=16)}), USUAL),
    ],
)
def test_a_change_reaches_only_what_is_made_from_it(changed: JobSpec, kinds: set[StepKind]) -> None:
    assert _kinds_that_differ(SPEC, changed) == kinds


def test_a_longer_evaluation_keeps_the_runs_that_there_are() -> None:
    keys = {step.key for step in _plan(_evaluation(runs=3)).steps}
    assert {key for row in _plan(SPEC).rows for key in row.runs} <= keys


def test_two_jobs_of_one_data_set_share_its_teacher() -> None:
    shared = {step.key for step in _plan(SPEC).steps} & {
        step.key for step in _plan(SPEC.model_copy(update={"method": Rded(), "seed": 5, "ipc": 3})).steps
    }
    assert len(shared) == 2


def test_shards_cover_every_ipc_once() -> None:
    spec = SPEC.model_copy(update={"ipc": 7, "resources": Resources(ipcs_per_step=3)})
    shards = [step for step in _plan(spec).steps if step.kind == StepKind.RECOVER]
    assert [(step.params["ipc_start"], step.params["ipc_stop"]) for step in shards] == [(0, 3), (3, 6), (6, 7)]
    label = next(step for step in _plan(spec).steps if step.kind == StepKind.RELABEL)
    assert [label.needs[f"images.{index}"] for index in range(3)] == [step.key for step in shards]


def test_large_work_is_cut_into_steps_of_minutes() -> None:
    steps = _plan(JobSpec(dataset=Digits(resolution=64), ipc=50)).steps
    assert sum(step.kind == StepKind.RECOVER for step in steps) > 10


def test_four_teachers_are_all_needed_by_recovery_and_labels() -> None:
    four = tuple(Teacher(seed=seed) for seed in range(4))
    spec = SPEC.model_copy(update={"method": FadrmPlus(budgets=(3, 3)), "teachers": four})
    for step in _plan(spec).steps:
        if step.kind in (StepKind.RECOVER, StepKind.RELABEL):
            assert sum(role.startswith("teacher.") for role in step.needs) == 4


@pytest.mark.parametrize("method", [Rded(), RandomReal()])
def test_a_method_is_not_its_own_baseline(method: Rded | RandomReal) -> None:
    spec = _evaluation(baselines=["rded", "random"]).model_copy(update={"method": method})
    subjects = {row.subject for row in _plan(spec).rows}
    assert subjects == {"distilled", "rded", "random"} - {method.method}


def test_rdeds_own_choice_is_a_baseline_of_patches_chosen_otherwise() -> None:
    spec = _evaluation(baselines=["rded", "patches"]).model_copy(
        update={"method": Rded(), "patches": Patches(difficulty="medium")}
    )
    assert {row.subject for row in _plan(spec).rows} == {"distilled", "rded"}


def test_at_224_px_rdeds_images_have_four_crops_and_fadrms_patches_one() -> None:
    spec = JobSpec(dataset=Digits(resolution=224), evaluation=Evaluation(baselines=("rded", "patches")))
    chosen = [step for step in _plan(spec).steps if step.kind == StepKind.SELECT]
    told = {step.title: (step.params["patches"]["difficulty"], step.params["patches"]["factor"]) for step in chosen}
    assert told == {"Choose patches (medium)": ("medium", 1), "Choose patches (easy, 2 x 2 an image)": ("easy", 2)}
    rded = spec.model_copy(update={"method": Rded(), "patches": Patches(difficulty="easy")})
    (own,) = [step for step in _plan(rded).steps if step.kind == StepKind.SELECT]
    assert own.key in {step.key for step in chosen}


def test_below_128_px_what_was_chosen_before_keeps_its_key() -> None:
    explicit = SPEC.model_copy(update={"patches": SPEC.patches.model_copy(update={"factor": 1})})
    assert _kinds_that_differ(SPEC, explicit) == {StepKind.PACKAGE}  # which holds the spec as it was sent


@pytest.mark.parametrize(
    ("method", "pointer", "remedy"),
    [
        (Rded(), "/patches/factor", "Set patches.factor to 1, or ipc to at most 31."),
        (Fadrm(), "/evaluation/baselines/0", "Set patches.factor to 1, or ipc to at most 31, or remove the baseline."),
        (RandomReal(), "/evaluation/baselines/0", "remove the baseline"),
    ],
)
def test_too_few_images_for_rdeds_four_crops_are_refused(method: Method, pointer: str, remedy: str) -> None:
    spec = JobSpec(dataset=Digits(resolution=224), ipc=40, method=method)
    [error] = check(spec, describe(spec.dataset))
    assert error.pointer == pointer and "of 2x2 crops need 160 images per class" in error.message
    assert remedy in error.hint
    assert check(spec.model_copy(update={"patches": Patches(factor=1)}), describe(spec.dataset)) == []


def test_a_row_for_every_student_subject_and_kind_of_label() -> None:
    rows = _plan(_evaluation(students=["convnet3", "convnet3_w32"])).rows
    assert len({(row.student, row.subject, row.labels) for row in rows}) == len(rows) == 2 * 2 * 2
    assert all(len(row.runs) == 2 for row in rows)


def test_hard_labels_need_no_relabelling_but_that_of_the_download() -> None:
    steps = _plan(_evaluation(labels=["hard"])).steps
    assert sum(step.kind == StepKind.RELABEL for step in steps) == 1
    assert all("labels" not in step.needs for step in steps if step.kind == StepKind.EVALUATE)


def _changed(**changes: object) -> JobSpec:
    return SPEC.model_copy(update=changes)


@pytest.mark.parametrize(
    ("spec", "pointer", "words"),
    [
        (_changed(ipc=143), "/ipc", "class '8' has only 126 training images, beside 14 that"),
        (_changed(ipc=40, patches=Patches(factor=2)), "/patches/factor", "need 160 images per class"),
        (_changed(ipc=9), "/patches/candidates", "patches.candidates is 8, but 9 crops"),
        (_changed(method=Fadrm(budgets=(1, 1), sizes=(8, 16))), "/method/sizes", "The last of method.sizes is 16"),
        (_changed(method=Fadrm(budgets=(1, 1), sizes=(128, 8))), "/method/sizes", "method.sizes mixes sides below"),
        (
            _changed(teachers=(Teacher(network="convnet4"),)),
            "/teachers/0/network",
            "convnet4 needs images of at least 16 px",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_value_field_and_remedy(spec: JobSpec, pointer: str, words: str) -> None:
    reports = check(spec, FACTS)
    assert [report.pointer for report in reports] == [pointer]
    assert words in reports[0].message and reports[0].hint
    with pytest.raises(SpecInvalid, match=re.escape(words)):
        plan(spec, FACTS)


def test_networks_of_small_images_are_refused_for_large_ones() -> None:
    reports = check(SPEC.model_copy(update={"dataset": Digits(resolution=224)}), describe(Digits(resolution=224)))
    assert [report.pointer for report in reports] == ["/teachers/0/network", "/evaluation/students/0"]
    assert "resnet18" in reports[0].hint


def test_what_can_be_is_not_refused() -> None:
    assert check(SPEC, FACTS) == []


def test_patches_that_nobody_takes_are_not_asked_for() -> None:
    spec = _evaluation(baselines=[]).model_copy(update={"ipc": 9, "method": RandomReal()})
    assert check(spec, FACTS) == []


def test_a_stage_too_small_for_a_teacher_is_refused() -> None:
    method, teachers = Fadrm(budgets=(1, 1), sizes=(8, 16)), (Teacher(network="convnet4"),)
    (report,) = check(_changed(method=method, teachers=teachers), describe(Digits(resolution=16)))
    assert report.pointer == "/method/sizes" and "8 px, but teacher convnet4 needs at least 16 px" in report.message


@pytest.mark.parametrize("resolution", [8, 64, 127, 128, 140, 224, 512])
def test_the_sizes_that_are_filled_in_can_be_asked_for(resolution: int) -> None:
    method, dataset = Fadrm().resolved(resolution), Digits(resolution=resolution)
    network = Teacher(network="resnet18")
    spec = _evaluation(students=["resnet18"]).model_copy(update={"method": method, "teachers": (network,)})
    assert check(spec, describe(dataset)) == []


def test_estimates_grow_with_the_work() -> None:
    def flop(change: Callable[[JobSpec], JobSpec]) -> float:
        return _plan(change(SPEC)).flop

    base = flop(lambda spec: spec)
    assert base > 0 and _plan(SPEC).size_bytes > 0
    assert flop(lambda spec: spec.model_copy(update={"ipc": 4})) > base
    assert flop(lambda spec: spec.model_copy(update={"method": Fadrm(budgets=(30, 20), batch=6)})) > base


def test_recipes_end_at_full_size_and_alternate_before() -> None:
    assert Fadrm().resolved(224).sizes == (200, 224, 200, 224)
    assert Fadrm(budgets=(1, 1, 1)).resolved(224).sizes == (224, 200, 224)
    assert Fadrm().resolved(32).sizes == (32,) * 4
    assert Fadrm().resolved(64).jitter == 4 and Fadrm().resolved(224).jitter == 32
    assert Fadrm(jitter=1, sizes=(8, 8, 8, 8)).resolved(8) == Fadrm(jitter=1, sizes=(8, 8, 8, 8))


def test_a_folder_is_planned_by_its_files(tmp_path: Path) -> None:
    spec = _changed(dataset=Folder(path=str(write_set(tmp_path))))
    before = {step.key for step in _plan(spec).steps}
    (tmp_path / "train" / "ant" / "000.png").unlink()
    assert before.isdisjoint(step.key for step in _plan(spec).steps)


def test_label_files_cannot_be_exported_where_no_label_is_kept() -> None:
    changes = {"labels": Labels(epochs=6, batch_size=7, recipe_only=True), "exports": ("uint8", "fkd")}
    [error] = check(SPEC.model_copy(update=changes), FACTS)
    assert error.pointer == "/exports/1" and "labels.recipe_only" in error.hint


@pytest.mark.parametrize("form", ["parquet", "normalised", "fkd"])
def test_a_form_asked_for_after_the_job_is_the_step_that_the_spec_would_have_asked_for(form: Export) -> None:
    spec = SPEC.model_copy(update={"nested": (1,), "ipc": 2})
    packed = [step for step in _plan(spec).steps if step.kind == StepKind.PACKAGE]
    asked = [step for step in _plan(spec.model_copy(update={"exports": (form,)})).steps if step.kind == StepKind.EXPORT]
    later = [another_form(step, form, classes=len(FACTS.classes), resolution=FACTS.resolution) for step in packed]
    assert [(step.key, step.size_bytes) for step in later] == [(step.key, step.size_bytes) for step in asked]


def test_exports_added_later_leave_all_other_steps_as_they_are() -> None:
    assert _kinds_that_differ(SPEC, SPEC.model_copy(update={"exports": ("parquet",)})) == {
        StepKind.EXPORT,
        StepKind.PACKAGE,
    }
