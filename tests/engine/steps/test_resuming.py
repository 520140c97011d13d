"""Every kind of step, stopped again and again, leaves the same bytes as one that was left in peace."""

from __future__ import annotations

import pytest
import torch

from engine import arrays
from engine.events import Checkpointed, Started
from engine.plan import StepKind
from engine.run import perform
from engine.store import Manifest
from tests.engine.jobs import CPU, Job, attempt, contents, interrupted

# kind -> stopped at every so many safe places, and how many attempts that makes at least
PLACES = {
    StepKind.PREPARE: (1, 3),
    StepKind.TEACH: (5, 4),
    StepKind.SELECT: (2, 5),
    StepKind.RECOVER: (3, 6),
    StepKind.RELABEL: (2, 3),
    StepKind.EVALUATE: (2, 3),
}

MEASURED = {"peak_bytes"}  # of an attempt, as its seconds are: not of what it made


@pytest.mark.parametrize("kind", PLACES)
def test_an_interrupted_step_leaves_the_same_bytes(job: Job, kind: StepKind) -> None:
    every, attempts = PLACES[kind]
    out, number = interrupted(job.step(kind), job.store, every=every)
    assert number >= attempts
    assert contents(out) == contents(job.folder(kind))
    job.store.forget_work(job.step(kind).key)


@pytest.mark.parametrize("kind", [*PLACES, StepKind.PACKAGE])
def test_a_step_done_twice_leaves_the_same_bytes(job: Job, kind: StepKind) -> None:
    assert contents(attempt(job.step(kind), job.store, 1)) == contents(job.folder(kind))
    job.store.forget_work(job.step(kind).key)


@pytest.mark.parametrize("kind", PLACES)
def test_the_results_of_an_interrupted_step_are_the_same(job: Job, kind: StepKind) -> None:
    step = job.step(kind)
    out, _ = interrupted(step, job.store, every=PLACES[kind][0])
    again = Manifest.model_validate_json((out / "manifest.json").read_text()).result
    whole = job.store.manifest(step.key).result
    assert again.keys() == whole.keys()
    assert {name: again[name] for name in again if name not in MEASURED} == {
        name: whole[name] for name in whole if name not in MEASURED
    }
    job.store.forget_work(step.key)


def test_checkpoints_are_left_in_passing_and_told_of(job: Job) -> None:
    step = job.step(StepKind.RECOVER)
    out = job.store.attempt(step.key, 1)
    events = list(perform(step, job.store, out=out, attempt=1, device=CPU, checkpoint_s=0))
    told = [event.done for event in events if isinstance(event, Checkpointed)]
    assert told == sorted(told) and len(told) >= 15
    assert len(list(job.store.checkpoints(step.key).glob("*.safetensors"))) == 2

    out = job.store.attempt(step.key, 2)
    events = list(perform(step, job.store, out=out, attempt=2, device=CPU))
    assert isinstance(events[0], Started) and events[0].resumed_at == told[-1]
    assert contents(out) == contents(job.folder(StepKind.RECOVER))
    job.store.forget_work(step.key)


def test_a_damaged_checkpoint_costs_time_and_nothing_else(job: Job) -> None:
    step = job.step(StepKind.RECOVER)
    list(perform(step, job.store, out=job.store.attempt(step.key, 1), attempt=1, device=CPU, checkpoint_s=0))
    newest = max(job.store.checkpoints(step.key).glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    assert contents(attempt(step, job.store, 2)) == contents(job.folder(StepKind.RECOVER))
    job.store.forget_work(step.key)


def test_the_images_do_not_depend_on_how_the_work_was_cut(job: Job) -> None:
    whole = job.step(StepKind.RECOVER)
    parts = []
    for ipc in range(2):
        params = whole.params | {"ipc_start": ipc, "ipc_stop": ipc + 1}
        shard = whole.model_copy(update={"params": params, "key": f"shard-{ipc}"})
        parts.append(arrays.read(attempt(shard, job.store, 1) / "images.npy"))
    assert torch.equal(torch.cat(parts), arrays.read(job.folder(StepKind.RECOVER) / "images.npy"))
