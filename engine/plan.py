"""From a spec to its graph of steps. Torch-free: the API plans, prices and stores; workers run what it planned.

A step's key says what it is made from, so equal work is found again wherever it was done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from engine.datasets import Facts
from engine.errors import ErrorReport
from engine.feasibility import impossibilities
from engine.networks import forward_flop
from engine.params import (
    EvaluateParams,
    PackageParams,
    PrepareParams,
    RecoverParams,
    RelabelParams,
    SelectParams,
    TeachParams,
)
from engine.schedule import default_jitter, stage_sizes
from engine.spec import Fadrm, JobSpec, Patches, RandomReal, sha256_of


class StepKind(StrEnum):
    """In the order in which a job goes through them."""

    PREPARE = "prepare"  # decode the real images once
    TEACH = "teach"  # train a network on them
    SELECT = "select"  # choose patches, or random images
    RECOVER = "recover"  # optimise the synthetic images
    RELABEL = "relabel"  # the teachers' soft labels
    EVALUATE = "evaluate"  # train and test a student
    PACKAGE = "package"  # make the download


# Raised when a kind's code comes to give other bytes for equal params: keys change, and old output is not taken for new.
CODE_VERSIONS = dict.fromkeys(StepKind, 1) | {StepKind.PACKAGE: 2}
SHARD_FLOP = 5e14  # a recover step's size: some seconds on a large GPU, a quarter of an hour on two CPU cores


class Step(BaseModel, frozen=True):
    """One unit of work: claimed, leased, checkpointed, cached and retried by itself."""

    key: str
    kind: StepKind
    title: str
    params: dict[str, Any]
    needs: dict[str, str]  # role -> key
    flop: float  # estimated floating-point operations, 2 a multiply-add
    size_bytes: int  # estimated output


class Row(BaseModel, frozen=True):
    """One line of the score card: a subject judged by one kind of student, once a run."""

    subject: str  # "distilled", "rded", "patches", "random"
    student: str
    labels: str  # "soft", "hard"
    runs: tuple[str, ...]  # keys of the evaluate steps


class Plan(BaseModel, frozen=True):
    """The steps of a job, each after those it needs, and how its score card reads."""

    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    package: str  # key of the package step

    @property
    def flop(self) -> float:
        return sum(step.flop for step in self.steps)

    @property
    def size_bytes(self) -> int:
        return sum(step.size_bytes for step in self.steps)


def check(spec: JobSpec, facts: Facts) -> list[ErrorReport]:
    """What this spec asks for that its data set cannot give; empty when it can be run."""
    return [error.report for error in impossibilities(spec, facts)]


def plan(spec: JobSpec, facts: Facts) -> Plan:
    """The graph of a job. Raises SpecInvalid when the data set cannot give what is asked (see `check`)."""
    for error in impossibilities(spec, facts):
        raise error
    return _Planner(spec=spec, facts=facts).plan()


@dataclass(slots=True, kw_only=True)
class _Planner:
    """Collects steps; a step that two parts of a job need is there once."""

    spec: JobSpec
    facts: Facts
    steps: dict[str, Step] = field(default_factory=dict)

    def plan(self) -> Plan:
        data = self._prepare()
        teachers = self._teach(data)
        subjects = {"distilled": self._distilled(data, teachers)}
        for baseline in self.spec.evaluation.baselines:
            images = self._baseline(baseline, data, teachers)
            if images != subjects["distilled"]:  # a method is not its own baseline
                subjects[baseline] = images
        labelled = subjects if "soft" in self.spec.evaluation.labels else {"distilled": subjects["distilled"]}
        labels = {name: self._relabel(name, images, data, teachers) for name, images in labelled.items()}
        rows = tuple(self._rows(subjects, labels, data))
        package = self._package(subjects["distilled"], labels["distilled"], rows, data, teachers)
        return Plan(steps=tuple(self.steps.values()), rows=rows, package=package)

    def _add(
        self,
        kind: StepKind,
        title: str,
        params: BaseModel,
        needs: dict[str, str],
        flop: float = 0.0,
        size_bytes: int = 0,
    ) -> str:
        facts = params.model_dump(mode="json")
        key = sha256_of([kind, CODE_VERSIONS[kind], facts, needs])
        step = Step(key=key, kind=kind, title=title, params=facts, needs=needs, flop=flop, size_bytes=size_bytes)
        return self.steps.setdefault(key, step).key

    @property
    def _num_distilled(self) -> int:
        return self.spec.ipc * len(self.facts.classes)

    @property
    def _image_bytes(self) -> int:
        return 3 * self.facts.resolution**2

    def _forward(self, network: str) -> float:
        return forward_flop(network, self.facts.resolution)

    def _prepare(self) -> str:
        params = PrepareParams(dataset=self.spec.dataset, resolution=self.facts.resolution, digest=self.facts.digest)
        images = self.facts.train_images + self.facts.test_images
        return self._add(
            StepKind.PREPARE, f"Read {self.facts.title}", params, {}, size_bytes=images * self._image_bytes
        )

    def _teach(self, data: str) -> dict[str, str]:
        """Role -> key of every teacher."""
        teachers = {}
        for index, teacher in enumerate(self.spec.teachers):
            params = TeachParams(teacher=teacher, flip=self.spec.flip, precision=self.spec.precision)
            flop = 3 * self._forward(teacher.network) * self.facts.train_images * teacher.epochs
            teachers[f"teacher.{index}"] = self._add(
                StepKind.TEACH, f"Train teacher {teacher.network}", params, {"data": data}, flop=flop
            )
        return teachers

    def _select(self, patches: Patches | None, title: str, data: str, teachers: dict[str, str]) -> str:
        params = SelectParams(patches=patches, ipc=self.spec.ipc, seed=self.spec.seed, precision=self.spec.precision)
        size = self._num_distilled * self._image_bytes
        if patches is None:
            return self._add(StepKind.SELECT, title, params, {"data": data}, size_bytes=size)
        seen = sum(min(count, patches.candidates) for count in self.facts.train_per_class) * patches.crops
        needs = {"data": data, "teacher.0": teachers["teacher.0"]}
        flop = self._forward(self.spec.teachers[0].network) * seen
        return self._add(StepKind.SELECT, title, params, needs, flop=flop, size_bytes=size)

    def _distilled(self, data: str, teachers: dict[str, str]) -> dict[str, str]:
        """Role -> key of the parts of the method's images."""
        if isinstance(self.spec.method, RandomReal):
            return self._baseline("random", data, teachers)
        patches = self._select(self.spec.patches, "Choose patches", data, teachers)
        if not isinstance(self.spec.method, Fadrm):
            return {"images.0": patches}
        return self._recover(self.spec.method, patches, data, teachers)

    def _baseline(self, name: str, data: str, teachers: dict[str, str]) -> dict[str, str]:
        if name == "random":
            return {"images.0": self._select(None, "Choose random images", data, teachers)}
        easiest = self.spec.patches.model_copy(update={"difficulty": "easy"})
        patches = easiest if name == "rded" else self.spec.patches
        return {"images.0": self._select(patches, f"Choose patches ({patches.difficulty})", data, teachers)}

    def _recover(self, recipe: Fadrm, patches: str, data: str, teachers: dict[str, str]) -> dict[str, str]:
        resolved = resolve_recipe(recipe, self.facts.resolution)
        per_ipc = self._recover_flop(resolved)
        width = self.spec.resources.ipcs_per_step or max(1, int(SHARD_FLOP / per_ipc))
        parts = {}
        for index, start in enumerate(range(0, self.spec.ipc, width)):
            stop = min(start + width, self.spec.ipc)
            params = RecoverParams(
                recipe=resolved,
                ipc_start=start,
                ipc_stop=stop,
                flip=self.spec.flip,
                seed=self.spec.seed,
                precision=self.spec.precision,
            )
            title = f"Recover images {start + 1} to {stop} of each class" if width < self.spec.ipc else "Recover images"
            needs = {"data": data, "patches": patches} | teachers
            size = (stop - start) * len(self.facts.classes) * self._image_bytes
            parts[f"images.{index}"] = self._add(
                StepKind.RECOVER, title, params, needs, flop=per_ipc * (stop - start), size_bytes=size
            )
        return parts

    def _recover_flop(self, recipe: Fadrm) -> float:
        """Operations for one image of each class: the forward pass and the gradient of the input, no weight gradients."""
        networks = [teacher.network for teacher in self.spec.teachers]
        assert recipe.sizes is not None
        per_image = sum(
            2 * budget * sum(forward_flop(network, size) for network in networks) / len(networks)
            for budget, size in zip(recipe.budgets, recipe.sizes, strict=True)
        )
        return per_image * len(self.facts.classes)

    def _relabel(self, subject: str, images: dict[str, str], data: str, teachers: dict[str, str]) -> str:
        params = RelabelParams(
            labels=self.spec.labels, flip=self.spec.flip, seed=self.spec.seed, precision=self.spec.precision
        )
        seen = self._num_distilled * self.spec.labels.epochs
        return self._add(
            StepKind.RELABEL,
            f"Label {_SUBJECT_TITLES[subject]}",
            params,
            {"data": data} | teachers | images,
            flop=seen * sum(self._forward(teacher.network) for teacher in self.spec.teachers),
            size_bytes=seen * (2 * len(self.facts.classes) + 16),
        )

    def _rows(self, subjects: dict[str, dict[str, str]], labels: dict[str, str], data: str) -> Iterator[Row]:
        for student in self.spec.evaluation.students:
            for subject, images in subjects.items():
                for kind in self.spec.evaluation.labels:
                    needs = {"data": data} | images
                    if kind == "soft":
                        needs["labels"] = labels[subject]
                    runs = [
                        self._evaluate(student, subject, kind, run, needs) for run in range(self.spec.evaluation.runs)
                    ]
                    yield Row(subject=subject, student=student, labels=kind, runs=tuple(runs))

    def _evaluate(self, student: str, subject: str, labels: str, run: int, needs: dict[str, str]) -> str:
        evaluation = self.spec.evaluation
        params = EvaluateParams.model_validate(
            {
                "student": student,
                "run": run,
                "labels": labels,
                "plan": self.spec.labels,
                "flip": self.spec.flip,
                "seed": self.spec.seed,
                "precision": self.spec.precision,
            }
            | evaluation.model_dump(include={"lr", "eta", "weight_decay", "temperature", "every"})
        )
        epochs = self.spec.labels.epochs
        seen = 3 * self._num_distilled * epochs + self.facts.test_images * (epochs // evaluation.every + 1)
        title = f"Train {student} on {_SUBJECT_TITLES[subject]}, {labels} labels, run {run + 1}"
        return self._add(StepKind.EVALUATE, title, params, needs, flop=seen * self._forward(student))

    def _package(
        self, images: dict[str, str], labels: str, rows: tuple[Row, ...], data: str, teachers: dict[str, str]
    ) -> str:
        runs = [(row, index, key) for row in rows for index, key in enumerate(row.runs)]
        first = self.steps[images["images.0"]]
        needs = {"data": data, "labels": labels, "patches": first.needs.get("patches", first.key)} | teachers | images
        needs |= {f"row.{index}": key for index, (_, _, key) in enumerate(runs)}
        params = PackageParams(
            spec=self.spec, rows=tuple((row.subject, row.student, row.labels, run) for row, run, _ in runs)
        )
        size = self._num_distilled * self._image_bytes + self.steps[labels].size_bytes
        return self._add(StepKind.PACKAGE, "Pack the download", params, needs, size_bytes=size)


_SUBJECT_TITLES = {
    "distilled": "the distilled images",
    "rded": "RDED's patches",
    "patches": "the source patches",
    "random": "random real images",
}


def resolve_recipe(recipe: Fadrm, resolution: int) -> Fadrm:
    """Fill in what depends on the resolution: the size of each stage, and the roll."""
    sizes = recipe.sizes or stage_sizes(resolution, len(recipe.budgets))
    jitter = default_jitter(resolution) if recipe.jitter is None else recipe.jitter
    return recipe.model_copy(update={"sizes": sizes, "jitter": jitter})
