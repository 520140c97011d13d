"""One step or a whole job: what is told, what is left, and what is not done twice."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine import data, steps
from engine.context import Context, Telling
from engine.datasets import describe
from engine.errors import Drained
from engine.events import Failed, Finished, Started
from engine.plan import StepKind, plan
from engine.run import perform, report_of, run
from engine.spec import Evaluation
from tests.engine.jobs import CPU, SPEC, Job
from tests.pretended_gpu import CUDA, pretended_gpu


def test_each_step_is_told_of_from_start_to_finish(job: Job) -> None:
    for step in job.plan.steps:
        told = [event for found, event in job.events if found.key == step.key]
        assert isinstance(told[0], Started) and isinstance(told[-1], Finished)
        assert json.loads(told[-1].model_dump_json())["result"] == job.store.manifest(step.key).result


def test_what_is_published_is_sealed_and_its_work_forgotten(job: Job) -> None:
    for step in job.plan.steps:
        manifest = job.store.manifest(step.key)
        assert (manifest.params, manifest.needs, manifest.kind) == (step.params, step.needs, step.kind)
        assert {"torch", "device", "python"} <= set(manifest.environment)
    assert job.store.manifest(job.plan.package).files


def test_a_whole_job_is_not_done_again(job: Job) -> None:
    assert list(run(job.plan, job.store, device=CPU)) == []


def test_another_student_is_all_that_is_done(job: Job) -> None:
    evaluation = Evaluation.model_validate(SPEC.evaluation.model_dump() | {"lr": 0.02, "runs": 1, "labels": ["soft"]})
    spec = SPEC.model_copy(update={"evaluation": evaluation})
    done = Counter(
        step.kind
        for step, event in run(plan(spec, describe(spec.dataset)), job.store, device=CPU)
        if isinstance(event, Finished)
    )
    assert done == {StepKind.EVALUATE: 2, StepKind.PACKAGE: 1}


def test_a_failure_ends_the_job_with_its_report(job: Job) -> None:
    spec = SPEC.model_copy(update={"precision": "fp16"})
    *_, (step, event) = run(plan(spec, describe(spec.dataset)), job.store, device=CPU)
    assert step.kind == StepKind.TEACH and isinstance(event, Failed)
    assert event.error.pointer == "/precision" and "fp16" in event.error.message


def test_being_asked_to_end_leaves_a_checkpoint(job: Job) -> None:
    step = job.step(StepKind.TEACH)
    out = job.store.attempt(step.key, 1)
    with pytest.raises(Drained, match="a checkpoint is left"):
        list(perform(step, job.store, out=out, device=CPU, stop=lambda: True))
    assert not (out / "manifest.json").exists()
    assert list(job.store.checkpoints(step.key).glob("*.safetensors"))
    job.store.forget_work(step.key)


def test_a_full_disk_is_a_report(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(context: Context) -> Telling:
        yield Started(total=1, unit="images")
        raise OSError(errno.ENOSPC, "No space left on device", str(context.out / "images.npy"))

    monkeypatch.setitem(steps.STEPS, StepKind.SELECT, full)
    *_, last = perform(job.step(StepKind.SELECT), job.store, out=job.store.attempt("full", 1), device=CPU)
    assert isinstance(last, Failed) and last.error.code == "disk_full" and "Free space" in last.error.hint


GPU_MESSAGE = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23.64 GiB of which 1.50 GiB is free. "
    "Including non-PyTorch memory, this process has 22.10 GiB memory in use."
)


def _memory_errors() -> Iterator[tuple[Exception, int | None, int | None]]:
    yield torch.OutOfMemoryError(GPU_MESSAGE), 20 * 2**20, 3 * 2**29
    yield RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."), 4096, None
    yield MemoryError(), None, None


@pytest.mark.parametrize(("error", "requested", "free"), list(_memory_errors()))
def test_too_little_memory_is_a_report_with_numbers(error: Exception, requested: int | None, free: int | None) -> None:
    report = report_of(error, CPU)
    assert report is not None and report.code == "gpu_out_of_memory"
    assert report.details == {"requested_bytes": requested, "free_bytes": free}


def test_a_step_finds_the_gpu_without_what_earlier_ones_left_there(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def starved(context: Context) -> Telling:
        found.append(torch.cuda.memory_reserved())
        yield Started(total=1, unit="images")
        held = torch.zeros(2**20, device=context.device)
        raise torch.OutOfMemoryError(f"CUDA out of memory beside {held.nbytes} bytes")

    monkeypatch.setitem(steps.STEPS, StepKind.SELECT, starved)
    step = job.step(StepKind.SELECT)
    only_data = step.model_copy(update={"needs": {"data": step.needs["data"]}})
    with pretended_gpu() as gpu:
        train = data.resident(job.folder(StepKind.PREPARE), "train", CUDA)
        data.teacher(job.folder(StepKind.TEACH), CUDA)
        assert gpu.bytes_now > train.nbytes
        for attempt in (1, 2):
            events = perform(only_data, job.store, out=job.store.attempt("starved", attempt), device=CUDA)
            assert [type(next(events)), type(next(events))] == [Started, Failed]
            assert gpu.taken_bytes == train.nbytes  # at once: the next may come before this one is looked at again
        data.forget_all_but([])
    assert found == [train.nbytes] * 2


def test_mistakes_of_the_engine_are_not_dressed_up() -> None:
    assert report_of(KeyError("x"), CPU) is None
    assert report_of(RuntimeError("shape mismatch"), CPU) is None
    assert report_of(PermissionError(errno.EACCES, "no"), CPU) is None


def test_a_step_knows_only_its_own_parameters(job: Job, tmp_path: Path) -> None:
    step = job.step(StepKind.SELECT)
    strange = step.model_copy(update={"params": step.params | {"ipcs": 3}})
    with pytest.raises(ValueError, match="Extra inputs"):
        list(perform(strange, job.store, out=tmp_path, device=CPU))
