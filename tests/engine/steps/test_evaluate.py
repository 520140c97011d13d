"""Students are trained alike and judged honestly."""

from __future__ import annotations

import pytest

from engine.events import Metric, Started
from engine.plan import StepKind
from tests.engine.jobs import Job, attempt


def _results(job: Job) -> dict[tuple[str, str], list[dict[str, object]]]:
    """(subject, labels) -> the results of its runs."""
    return {(row.subject, row.labels): [job.store.manifest(key).result for key in row.runs] for row in job.plan.rows}


def test_it_is_tested_every_few_epochs_and_after_the_last(job: Job) -> None:
    metrics = [event for event in job.told(StepKind.EVALUATE) if isinstance(event, Metric)]
    assert [metric.x for metric in metrics if "evaluate.top1" in metric.values] == [1, 3, 5]
    assert [metric.x for metric in metrics if "evaluate.loss" in metric.values] == [0, 1, 2, 3, 4, 5]


def test_last_and_best_are_both_told(job: Job) -> None:
    for runs in _results(job).values():
        for result in runs:
            curve = dict(result["curve"])  # type: ignore[call-overload]
            assert result["top1_last_pct"] == curve[5]
            assert result["top1_best_pct"] == max(curve.values()) == curve[result["best_epoch"]]
            assert result["epochs"] == 6


def test_runs_differ_by_their_seed(job: Job) -> None:
    for runs in _results(job).values():
        assert runs[0]["curve"] != runs[1]["curve"]


def test_students_learn_from_either_kind_of_label(job: Job) -> None:
    for labels in ("soft", "hard"):
        row = next(row for row in job.plan.rows if (row.subject, row.labels) == ("distilled", labels))
        told = [event for step, event in job.events if step.key == row.runs[0] and isinstance(event, Metric)]
        losses = [event.values["evaluate.loss"] for event in told]
        assert losses[-1] < losses[0]


def test_testing_more_often_changes_no_accuracy(job: Job) -> None:
    step = job.step(StepKind.EVALUATE)
    often = step.model_copy(update={"params": step.params | {"every": 1}, "key": "often"})
    manifest = attempt(often, job.store, 1) / "manifest.json"
    whole = job.store.manifest(step.key)
    curve = dict(type(whole).model_validate_json(manifest.read_text()).result["curve"])
    assert {epoch: curve[epoch] for epoch in (1, 3, 5)} == dict(whole.result["curve"])


def test_it_says_what_it_counts(job: Job) -> None:
    started = job.told(StepKind.EVALUATE)[0]
    assert isinstance(started, Started) and (started.total, started.unit, started.resumed_at) == (6, "epochs", 0)


@pytest.mark.parametrize("every", [100])
def test_a_rare_test_still_happens_at_the_end(job: Job, every: int) -> None:
    step = job.step(StepKind.EVALUATE)
    rare = step.model_copy(update={"params": step.params | {"every": every}, "key": "rare"})
    manifest = attempt(rare, job.store, 1) / "manifest.json"
    result = type(job.store.manifest(step.key)).model_validate_json(manifest.read_text()).result
    assert [epoch for epoch, _ in result["curve"]] == [5]
