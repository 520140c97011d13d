"""The papers' figures: which stands beside which job."""

from __future__ import annotations

from typing import Any

import pytest

from app.results.figures import ABLATIONS, CV_DD, FADRM_1, FIGURES, RDED_2, difference, paper_figure


def spec(dataset: dict[str, Any], method: str = "fadrm", ipc: int = 10) -> dict[str, Any]:
    return {"dataset": dataset, "ipc": ipc, "method": {"method": method}}


TINY = {"source": "folder", "path": "/anywhere/tiny-imagenet-200/", "classes": None}
CIFAR10 = {"source": "torchvision", "name": "cifar10"}


@pytest.mark.parametrize(
    ("dataset", "method", "ipc", "student", "top1", "source"),
    [
        (TINY, "fadrm", 10, "resnet18", 48.9, FADRM_1),
        (TINY, "fadrm+", 50, "resnet101", 60.8, FADRM_1),
        (TINY, "rded", 1, "resnet50", 8.2, FADRM_1),
        ({"source": "torchvision", "name": "cifar100"}, "fadrm", 10, "resnet18", 67.4, FADRM_1),
        (CIFAR10, "rded", 50, "resnet18", 62.1, RDED_2),
        (CIFAR10, "sre2l++", 10, "resnet18", 42.5, CV_DD),
        ({"source": "folder", "path": "/d/imagewoof2"}, "cv-dd", 10, "resnet50", 47.8, FADRM_1),
    ],
)
def test_a_job_of_a_papers_setting_finds_the_papers_figure(
    dataset: dict[str, Any], method: str, ipc: int, student: str, top1: float, source: str
) -> None:
    found = paper_figure(spec(dataset, method, ipc), "distilled", student, "soft")
    assert found is not None and (found.top1_pct, found.source, found.alike) == (top1, source, True)


def test_a_narrow_network_is_shown_the_whole_ones_figure_and_no_difference() -> None:
    found = paper_figure(spec(CIFAR10, "rded"), "distilled", "resnet18_w16", "soft")
    assert found is not None and found.top1_pct == 37.1 and not found.alike
    assert found.setting == "CIFAR-10, 10 per class, ResNet-18" and difference(50.0, found) is None


def test_the_baseline_rded_has_rdeds_figure() -> None:
    found = paper_figure(spec(TINY), "rded", "resnet18", "soft")
    assert found is not None and found.top1_pct == 41.9 and difference(40.0, found) == pytest.approx(-1.9)


@pytest.mark.parametrize(
    ("wanted", "subject", "student", "labels"),
    [
        (spec(CIFAR10), "distilled", "resnet18", "soft"),  # FADRM has no CIFAR-10
        (spec(TINY), "distilled", "resnet18", "hard"),
        (spec(TINY, ipc=7), "distilled", "resnet18", "soft"),
        (spec(TINY), "distilled", "convnet6", "soft"),
        (spec(TINY), "random", "resnet18", "soft"),
        (spec(TINY | {"classes": ["n1", "n2"]}), "distilled", "resnet18", "soft"),
        (spec({"source": "upload", "id": "0" * 64}), "distilled", "resnet18", "soft"),
        (spec({"source": "folder", "path": "/srv/flowers"}), "distilled", "resnet18", "soft"),
    ],
)
def test_what_no_paper_reports_has_no_figure(wanted: dict[str, Any], subject: str, student: str, labels: str) -> None:
    assert paper_figure(wanted, subject, student, labels) is None


def test_table_one_is_whole() -> None:
    table = [one for one in FIGURES.values() if one.source == FADRM_1]
    assert len(table) == 5 * 3 * 3 * 5 - 2 * 3 * 3, "two sets without EDC"
    assert all(0 < one.top1_pct < 100 for one in FIGURES.values())


def test_the_papers_ablations_are_best_at_its_choices() -> None:
    best = {name: max(ablation.values, key=ablation.values.__getitem__) for name, ablation in ABLATIONS.items()}
    assert (best["alpha"], best["injections"], best["patches"]) == ("0.5", "3", "1 x 1")
