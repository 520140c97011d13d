"""The part of a plan that judges images: soft labels, students, class-incremental learning, the upper bound."""

from __future__ import annotations

from typing import Any

from engine.networks import NETWORKS
from engine.params import ContinualParams, EvaluateParams, RelabelParams
from engine.plan.draft import Draft, Parts
from engine.plan.graph import ContinualRow, Row, StepKind
from engine.spec import Labels, Teacher, stored_epochs

QUICK_SHARE = 10  # a quick look takes one epoch in so many
SUBJECT_TITLES = {
    "distilled": "the distilled images",
    "rded": "RDED's patches",
    "patches": "the source patches",
    "random": "random real images",
    "herding": "images chosen by herding",
}
# Table 7: training on all real images.
UPPER_BOUND: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 128,
    "lr": 0.1,
    "weight_decay": 1e-4,
    "crop": "resized",
    "cutmix": True,
}


def rows_of(draft: Draft, subjects: dict[str, Parts], ipc: int) -> tuple[list[Row], str]:
    """The rows of the score card at one ipc, and the key of the distilled images' labels."""
    evaluation = draft.spec.evaluation
    kinds = ("hard",) if evaluation.quick else evaluation.labels
    labelled = subjects if "soft" in kinds else {"distilled": subjects["distilled"]}
    labels = {name: _relabel(draft, name, images, ipc) for name, images in labelled.items()}
    rows = [
        _row(draft, subject, student, kind, ipc, images, labels.get(subject))
        for student in evaluation.students
        for subject, images in subjects.items()
        for kind in kinds
    ]
    return rows, labels["distilled"]


def continual_rows(draft: Draft, subjects: dict[str, Parts], ipc: int) -> list[ContinualRow]:
    """Class-incremental learning at the job's own ipc, for each subject and each number of groups."""
    wanted, evaluation = draft.spec.evaluation.continual, draft.spec.evaluation
    if wanted is None or ipc != draft.spec.ipc:
        return []
    student = wanted.student or (*evaluation.students, draft.spec.teachers[0].network)[0]
    return [
        ContinualRow(
            subject=subject,
            student=student,
            steps=steps,
            ipc=ipc,
            runs=tuple(_continual(draft, subject, student, steps, run, images, ipc) for run in range(_runs(draft))),
        )
        for steps in wanted.steps
        for subject, images in subjects.items()
    ]


def full_data(draft: Draft) -> dict[str, str]:
    """Student network -> key of the same network trained on all real images, all by one recipe.

    A teacher of that network is another thing (other epochs, no CutMix, weights from elsewhere), unless it was asked for
    by the very same recipe: then the two are one step.
    """
    evaluation = draft.spec.evaluation
    if not evaluation.full_data:
        return {}
    return {
        student: draft.teach(_whole_set(student), title=f"Train {student} on all real images")
        for student in evaluation.students
    }


def _whole_set(student: str) -> Teacher:
    """How a student's network is trained on all real images: Table 7; networks without batch norm by AdamW."""
    own = {} if NETWORKS[student].batch_norm else {"optimizer": "adamw", "lr": 0.001}
    return Teacher.model_validate({"network": student} | UPPER_BOUND | own)


def _runs(draft: Draft) -> int:
    return 1 if draft.spec.evaluation.quick else draft.spec.evaluation.runs


def _plan(draft: Draft) -> Labels:
    """The epochs and batches that students see."""
    labels = draft.spec.labels
    if not draft.spec.evaluation.quick:
        return labels
    return labels.model_copy(update={"epochs": max(1, labels.epochs // QUICK_SHARE)})


def _relabel(draft: Draft, subject: str, images: Parts, ipc: int) -> str:
    spec = draft.spec
    params = RelabelParams(labels=spec.labels, take=ipc, flip=spec.flip, seed=spec.seed, precision=spec.precision)
    classes = len(draft.facts.classes)
    top_k = spec.labels.top_k or classes
    per_label = 4 * top_k + 2 if top_k < classes else 2 * classes
    seen = draft.images(ipc) * stored_epochs(spec.labels)
    forwards = sum(draft.forward(teacher.network) for teacher in spec.teachers)
    return draft.add(
        StepKind.RELABEL,
        f"Label {SUBJECT_TITLES[subject]}{_of(draft, ipc)}",
        params,
        {"data": draft.data} | draft.teachers | images,
        flop=0.0 if spec.labels.recipe_only else seen * forwards,
        size_bytes=seen * (16 + (0 if spec.labels.recipe_only else per_label)),
    )


def _of(draft: Draft, ipc: int) -> str:
    return f", {ipc} of each class" if draft.spec.nested else ""


def _row(draft: Draft, subject: str, student: str, labels: str, ipc: int, images: Parts, labels_key: str | None) -> Row:
    needs = {"data": draft.data} | images
    if labels == "soft":
        assert labels_key is not None
        needs["labels"] = labels_key
        if draft.spec.labels.recipe_only:
            needs |= draft.teachers
    runs = tuple(_evaluate(draft, subject, student, labels, run, needs, ipc) for run in range(_runs(draft)))
    return Row(subject=subject, student=student, labels=labels, ipc=ipc, runs=runs)


def _evaluate(draft: Draft, subject: str, student: str, labels: str, run: int, needs: dict[str, str], ipc: int) -> str:
    plan = _plan(draft)
    own = {"labels": labels, "every": draft.spec.evaluation.every}
    own["valid_per_class"] = draft.spec.evaluation.valid_per_class
    params = EvaluateParams.model_validate(_student_params(draft, student, run, ipc) | own)
    seen = 3 * draft.images(ipc) * plan.epochs
    seen += draft.facts.test_images * (plan.epochs // draft.spec.evaluation.every + 1)
    title = f"Train {student} on {SUBJECT_TITLES[subject]}{_of(draft, ipc)}, {labels} labels, run {run + 1}"
    flop = seen * draft.forward(student)
    if labels == "soft" and plan.recipe_only:  # the teachers answer as students learn
        flop += draft.images(ipc) * plan.epochs * sum(draft.forward(teacher.network) for teacher in draft.spec.teachers)
    return draft.add(StepKind.EVALUATE, title, params, needs, flop=flop)


def _continual(draft: Draft, subject: str, student: str, steps: int, run: int, images: Parts, ipc: int) -> str:
    plan = _plan(draft)
    params = ContinualParams.model_validate(_student_params(draft, student, run, ipc) | {"steps": steps})
    seen = draft.images(ipc) * plan.epochs * (steps + 1) / 2  # the classes so far, group after group
    teachers = sum(draft.forward(teacher.network) for teacher in draft.spec.teachers)
    title = f"Learn {SUBJECT_TITLES[subject]} in {steps} groups of classes, run {run + 1}"
    needs = {"data": draft.data} | draft.teachers | images
    return draft.add(StepKind.CONTINUAL, title, params, needs, flop=seen * (3 * draft.forward(student) + teachers))


def _student_params(draft: Draft, student: str, run: int, ipc: int) -> dict[str, Any]:
    """What evaluate and continual steps are told alike."""
    spec, evaluation = draft.spec, draft.spec.evaluation
    rates = evaluation.rates.get(student)
    return {
        "student": student,
        "run": run,
        "plan": _plan(draft),
        "take": ipc,
        "lr": evaluation.lr if rates is None else rates.lr,
        "eta": evaluation.eta if rates is None else rates.eta,
        "weight_decay": evaluation.weight_decay,
        "temperature": evaluation.temperature,
        "flip": spec.flip,
        "seed": spec.seed,
        "precision": spec.precision,
    }
