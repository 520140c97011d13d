"""Teachers that were trained elsewhere: tested once, left as if trained here, refused when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.data import real_data, teacher, teacher_facts
from engine.datasets import Facts
from engine.errors import ErrorReport
from engine.events import Failed, Metric, Progress, Started
from engine.models import build
from engine.plan import Step, StepKind, check
from engine.run import perform
from engine.sources import Digits
from engine.spec import JobSpec, Teacher
from engine.store import sha256_of_file
from tests.engine.jobs import CPU, SMALL, Job, attempt


def importing(job: Job, weights: str, key: str, *, network: str = SMALL, sha256: str | None = None) -> Step:
    """The step of a teacher whose weights come from there."""
    step = job.step(StepKind.TEACH)
    told = Teacher(network=network, weights=weights).model_dump(mode="json")
    return step.model_copy(update={"params": step.params | {"teacher": told, "weights_sha256": sha256}, "key": key})


def failure(job: Job, step: Step) -> ErrorReport:
    events = list(perform(step, job.store, out=job.store.attempt(step.key, 1), attempt=1, device=CPU))
    assert isinstance(events[-1], Failed), events[-1]
    return events[-1].error


def test_a_teacher_from_a_file_is_tested_and_left_as_one_that_was_trained_here(job: Job, tmp_path: Path) -> None:
    trained, file = job.folder(StepKind.TEACH), tmp_path / "mine.safetensors"
    ours = load_file(trained / "weights.safetensors")
    save_file({"module." + name.replace("linear.", "fc."): value for name, value in ours.items()}, file)
    out = attempt(importing(job, str(file), "from-file", sha256=sha256_of_file(file)), job.store, 1)
    facts, before = teacher_facts(out), teacher_facts(trained)
    assert (out / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()
    assert facts == before | {"weights": str(file), "epochs": 0, "top1_pct": facts["top1_pct"]}
    one_image = 100 / len(real_data(job.folder(StepKind.PREPARE)).test)
    assert facts["top1_pct"] == pytest.approx(before["top1_pct"], abs=1.01 * one_image)
    assert all(torch.equal(value, ours[name]) for name, value in teacher(out, CPU).state_dict().items())


def test_an_imported_teacher_tells_its_accuracy_once(job: Job, tmp_path: Path) -> None:
    step = importing(job, str(job.folder(StepKind.TEACH) / "weights.safetensors"), "told")
    events = list(perform(step, job.store, out=job.store.attempt(step.key, 1), attempt=1, device=CPU))
    assert [type(event) for event in events[:3]] == [Started, Metric, Progress]
    assert sum(isinstance(event, Metric) for event in events) == 1


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Weights for another number of classes."""
    file = tmp_path / "foreign.safetensors"
    save_file(build(SMALL, num_classes=3, resolution=8).state_dict(), file)
    return file


def test_weights_that_do_not_fit_end_the_step_with_what_they_are(job: Job, foreign: Path) -> None:
    report = failure(job, importing(job, str(foreign), "foreign"))
    assert report.code == "weights_invalid" and report.pointer == "/teachers"
    assert f"{foreign} does not fit {SMALL} for 10 classes" in report.message
    assert f"It is {SMALL} for 3 classes" in report.hint


def test_a_file_that_changed_since_the_job_was_planned_is_refused(job: Job, foreign: Path) -> None:
    report = failure(job, importing(job, str(foreign), "changed", sha256="0" * 64))
    assert "has changed since the job was planned" in report.message and report.hint


def test_torchvisions_weights_are_refused_for_other_classes_before_anything_is_fetched(job: Job) -> None:
    report = failure(job, importing(job, "torchvision", "torchvision", network="resnet18"))
    assert report.code == "weights_invalid" and "images from 128 px, and these are 8 px" in report.message


@pytest.mark.parametrize(
    ("network", "resolution", "classes", "words"),
    [
        ("resnet18", 224, 10, "the 1,000 classes of ImageNet, and these are 10"),
        ("resnet18", 64, 1000, "images from 128 px, and these are 64 px"),
        ("convnet6", 224, 1000, "torchvision has no weights of convnet6"),
        ("resnet18", 224, 1000, ""),
    ],
)
def test_planning_knows_where_torchvisions_weights_do_not_serve(
    network: str, resolution: int, classes: int, words: str
) -> None:
    spec = JobSpec(dataset=Digits(), teachers=(Teacher(), Teacher(network=network, weights="torchvision")))
    facts = Facts(
        title="images",
        classes=tuple(map(str, range(classes))),
        train_per_class=(100,) * classes,
        test_per_class=(10,) * classes,
        resolution=resolution,
        digest="",
    )
    found = [error for error in check(spec, facts) if error.pointer == "/teachers/1/weights"]
    assert [words in error.message and bool(error.hint) for error in found] == ([True] if words else [])
