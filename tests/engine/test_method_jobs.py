"""Every method, from real images to the download: two classes, few iterations, and interrupted the same bytes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine import arrays
from engine.datasets import describe
from engine.feasibility import impossibilities
from engine.methods import (
    TITLES,
    Cda,
    CvDd,
    Edc,
    Fadrm,
    FadrmPlus,
    Gvbsm,
    Herding,
    Method,
    Optimised,
    Patches,
    RandomReal,
    Rded,
    Sre2l,
    Sre2lPlusPlus,
)
from engine.plan import StepKind
from engine.sources import Folder
from engine.spec import Evaluation, JobSpec, Labels, Teacher
from tests.engine.jobs import SMALL, Job, carried_out, contents, interrupted
from tests.engine.pictures import write_set

METHODS: tuple[Method, ...] = (
    *(method(budgets=(3, 2)) for method in (Fadrm, FadrmPlus, Sre2lPlusPlus, Sre2l, Cda, Gvbsm, CvDd, Edc)),
    Rded(),
    Herding(),
    RandomReal(),
)
NEEDS = {  # of the recover step, beside data and teachers
    "sre2l": set(),
    "cda": set(),
    "g-vbsm": {"observed"},
    "cv-dd": {"observed", "patches"},
    "edc": {"observed", "patches"},
}


def spec_of(method: Method, root: Path) -> JobSpec:
    folder = write_set(root / "images", classes=("ant", "bee"))
    networks = (SMALL, "resnet18_w16")[: min(2, method.TEACHERS[1])]
    return JobSpec(
        dataset=Folder(path=str(folder), resolution=16),
        ipc=2,
        method=method,
        teachers=tuple(
            Teacher(network=network, epochs=2, batch_size=6, optimizer="adamw", lr=0.01) for network in networks
        ),
        patches=Patches(candidates=4, crops=2),
        labels=Labels(epochs=2, batch_size=4),
        evaluation=Evaluation(students=(SMALL,), runs=1, baselines=(), labels=("soft",), valid_per_class=0),
    )


def test_every_method_is_tried() -> None:
    assert {method.method for method in METHODS} == set(TITLES)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
def test_a_method_goes_from_real_images_to_a_download(method: Method, tmp_path: Path) -> None:
    job = carried_out(spec_of(method, tmp_path), tmp_path / "store")
    step = job.step(StepKind.RECOVER if isinstance(method, Optimised) else StepKind.SELECT)
    images = arrays.read(job.store.step(step.key) / "images.npy")
    assert images.shape == (2, 2, 3, 16, 16) and images.float().flatten(2).std(2).min() > 0
    if isinstance(method, Optimised):
        roles = {role.partition(".")[0] for role in step.needs}
        assert roles - {"data", "teacher"} == NEEDS.get(method.method, {"patches"})
        out, attempts = interrupted(step, job.store, every=2)
        assert attempts > 2 and contents(out) == contents(job.store.step(step.key))
    from_noise = method.method in {"sre2l", "cda", "g-vbsm"}
    assert all(bool(image["sources"]) != from_noise for image in _manifest(job)["images"])


def _manifest(job: Job) -> dict[str, Any]:
    with zipfile.ZipFile(next(job.folder(StepKind.PACKAGE).glob("*.zip"))) as archive:
        found: dict[str, Any] = json.loads(
            archive.read(next(name for name in archive.namelist() if name.endswith("manifest.json")))
        )
    return found


def test_from_128_px_on_an_rded_image_is_of_four_real_ones_and_says_which(tmp_path: Path) -> None:
    spec = spec_of(Rded(), tmp_path)
    changes = {
        "dataset": spec.dataset.model_copy(update={"resolution": 128}),
        "ipc": 1,
        "teachers": (Teacher(network="shufflenet_v2_x0_5", epochs=1, batch_size=6),),
        "evaluation": spec.evaluation.model_copy(update={"students": ()}),
    }
    job = carried_out(spec.model_copy(update=changes), tmp_path / "store")
    sources = [image["sources"] for image in _manifest(job)["images"]]
    assert [len({source["file"] for source in image}) for image in sources] == [4, 4]


def test_images_from_noise_ask_for_no_patches(tmp_path: Path) -> None:
    spec = spec_of(Sre2l(budgets=(3,)), tmp_path).model_copy(update={"patches": Patches(candidates=1)})
    assert not list(impossibilities(spec, describe(spec.dataset)))


def test_a_committee_of_the_same_network_twice_is_refused(tmp_path: Path) -> None:
    spec = spec_of(CvDd(budgets=(3,)), tmp_path)
    (error,) = impossibilities(spec.model_copy(update={"teachers": spec.teachers[:1] * 2}), describe(spec.dataset))
    assert error.report.pointer == "/teachers/1" and "named twice" in error.report.message and error.report.hint


def test_a_committee_of_one_is_refused(tmp_path: Path) -> None:
    spec = spec_of(Gvbsm(budgets=(3,)), tmp_path)
    (error,) = impossibilities(spec.model_copy(update={"teachers": spec.teachers[:1]}), describe(spec.dataset))
    assert error.report.pointer == "/teachers" and "takes 2 to 8 teachers" in error.report.message


BARE = Teacher(network="alexnet", epochs=1, batch_size=6, optimizer="adamw", lr=0.001)  # without batch norm


@pytest.mark.parametrize("method", [Fadrm(budgets=(3,)), Cda(budgets=(3,))], ids=lambda method: method.method)
def test_a_method_that_matches_batch_norm_refuses_a_teacher_without(method: Method, tmp_path: Path) -> None:
    spec = spec_of(method, tmp_path).model_copy(update={"teachers": (BARE,)})
    (error,) = impossibilities(spec, describe(spec.dataset))
    assert error.report.pointer == "/teachers/0/network"
    assert "alexnet has none" in error.report.message and SMALL in error.report.hint


def test_a_committee_without_any_batch_norm_is_refused_teacher_by_teacher(tmp_path: Path) -> None:
    spec = spec_of(FadrmPlus(budgets=(3,)), tmp_path).model_copy(update={"teachers": (BARE, BARE)})
    pointers = [error.report.pointer for error in impossibilities(spec, describe(spec.dataset))]
    assert pointers == ["/teachers/0/network", "/teachers/1/network"]


def test_beside_another_a_teacher_without_batch_norm_counts_by_its_logits(tmp_path: Path) -> None:
    spec = spec_of(FadrmPlus(budgets=(2, 2)), tmp_path)
    job = carried_out(spec.model_copy(update={"teachers": (*spec.teachers[:1], BARE)}), tmp_path / "store")
    images = arrays.read(job.store.step(job.step(StepKind.RECOVER).key) / "images.npy")
    assert images.shape == (2, 2, 3, 16, 16) and images.float().flatten(2).std(2).min() > 0


def test_what_only_labels_with_a_teacher_takes_any(tmp_path: Path) -> None:
    spec = spec_of(RandomReal(), tmp_path).model_copy(update={"teachers": (BARE,)})
    assert not list(impossibilities(spec, describe(spec.dataset)))
