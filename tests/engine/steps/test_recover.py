"""What recovery tells while it runs, and that it does what it is for."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine import arrays
from engine.data import real_data, teacher
from engine.events import Event, Failed, Injection, Metric, Preview, Progress, Started
from engine.methods import Fadrm
from engine.params import RecoverParams
from engine.pixels import normalised
from engine.plan import Step, StepKind
from engine.run import perform
from engine.steps.recover import entropy_bits
from tests.engine.jobs import CPU, Job, attempt, contents, interrupted


def _metrics(events: list[Event], name: str) -> dict[int, float]:
    return {event.x: event.values[name] for event in events if isinstance(event, Metric) and name in event.values}


def _changed(job: Job, name: str, **changes: object) -> Step:
    """The job's recovery with another recipe, of blocks that hold all classes."""
    step = job.step(StepKind.RECOVER)
    params = RecoverParams.model_validate(step.params)
    method = Fadrm(sizes=(8,) * 2, jitter=1, batch=10, budgets=(3, 2)).model_copy(update=changes)
    params = params.model_copy(update={"recipe": method.recipe(8)})
    return step.model_copy(update={"params": params.model_dump(mode="json"), "key": name})


def _recovered(job: Job, name: str, **changes: object) -> tuple[torch.Tensor, list[Event]]:
    """Images (I, K, 3, S, S) of such a recovery, and what was told."""
    out = job.store.attempt(name, 1)
    events = list(perform(_changed(job, name, **changes), job.store, out=out, device=CPU))
    return arrays.read(out / "images.npy"), events


def test_ipcs_that_share_a_batch_come_to_what_each_comes_to_alone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    together, told = _recovered(job, "together")
    monkeypatch.setattr("engine.plan.memory.TOGETHER_BYTES", 1)
    alone, told_alone = _recovered(job, "alone")
    assert ((together.int() - alone.int()).abs() <= 1).float().mean() > 0.999
    for name in ("recover.loss", "recover.loss_end", "recover.entropy"):
        expected = _metrics(told_alone, name)
        assert _metrics(told, name) == {x: pytest.approx(value, rel=1e-2) for x, value in expected.items()}


def test_ipcs_that_share_a_batch_go_on_to_the_same_bytes(job: Job) -> None:
    step = _changed(job, "shared")
    whole = contents(attempt(step, job.store, 1))
    resumed, attempts = interrupted(step, job.store, every=2)
    assert attempts >= 3 and contents(resumed) == whole


def test_images_come_closer_to_what_the_teacher_knows(job: Job) -> None:
    images, events = _recovered(job, "longer", budgets=(40, 40), sizes=(8, 8))
    losses = list(_metrics(events, "recover.loss").values())
    assert min(losses[-10:]) < losses[0]
    assert images.shape == (2, 10, 3, 8, 8)
    patches = arrays.read(job.folder(StepKind.SELECT) / "images.npy")
    assert not torch.equal(images, patches)


def test_curves_are_those_of_the_first_block_and_others_tell_their_end(job: Job) -> None:
    told = job.told(StepKind.RECOVER)  # two ipcs of two blocks each
    for name in ("recover.loss", "recover.loss_ce", "recover.loss_bn", "recover.lr"):
        assert list(_metrics(told, name)) == [0, 1, 2, 3, 4]
    assert list(_metrics(told, "recover.loss_end")) == [0, 1]
    result = job.store.manifest(job.step(StepKind.RECOVER).key).result
    assert result["loss_end"] > 0 and result["peak_bytes"] > 2**20


def test_the_patches_are_shown_first_and_both_sides_of_an_injection(job: Job) -> None:
    told = [event for event in job.told(StepKind.RECOVER) if isinstance(event, Preview | Injection)]
    kinds = [(type(event).__name__, event.x) for event in told]
    assert kinds[0] == ("Preview", 0)
    at = kinds.index(("Injection", 2))
    assert kinds[at - 1] == ("Preview", 2) and kinds[at + 1] == ("Preview", 3)
    assert kinds[-1] == ("Preview", 5)
    (injection,) = [event for event in told if isinstance(event, Injection)]
    assert (injection.alpha, injection.size_from, injection.size_to) == (0.5, 8, 8)


def test_every_preview_is_a_file_with_a_name_for_each_tile(job: Job) -> None:
    previews = [event for event in job.told(StepKind.RECOVER) if isinstance(event, Preview)]
    assert len({preview.file for preview in previews}) == len(previews)
    for preview in previews:
        assert (job.folder(StepKind.RECOVER) / preview.file).is_file()
        assert len(preview.labels) == len(preview.names) == 6  # of a block of six classes
    assert previews[0].names[3] == "3 · ipc 0"


def test_every_contact_sheet_is_of_the_same_images(job: Job) -> None:
    previews = [event for event in job.told(StepKind.RECOVER) if isinstance(event, Preview)]
    assert len({preview.x for preview in previews}) == len(previews)  # none takes the place of another
    assert {tuple(preview.names) for preview in previews} == {tuple(previews[0].names)}


def test_progress_is_counted_in_image_iterations(job: Job) -> None:
    told = job.told(StepKind.RECOVER)
    assert isinstance(told[0], Started) and told[0].total == 2 * 10 * 5
    done = [event.done for event in told if isinstance(event, Progress)]
    assert done == sorted(done) and done[-1] == 100


def test_entropy_is_between_nothing_and_all_that_the_classes_allow(job: Job) -> None:
    told = _metrics(job.told(StepKind.RECOVER), "recover.entropy")
    assert all(0 <= value <= 3.33 for value in told.values())  # log2 of 10 classes
    data, model = real_data(job.folder(StepKind.PREPARE)), teacher(job.folder(StepKind.TEACH), CPU)
    images = normalised(data.test[:20], data.statistics)
    chances = model(images).softmax(1)
    expected = -(chances * chances.log2()).sum(1).mean().item()
    assert abs(entropy_bits(model, images, "fp32") - expected) < 1e-4


def test_floor_is_at_most_one_level_darker_than_nearest(job: Job) -> None:
    nearest, floor = (_recovered(job, rounding, rounding=rounding)[0].int() for rounding in ("nearest", "floor"))
    assert set((nearest - floor).flatten().tolist()) == {0, 1}


def test_several_teachers_take_turns(job: Job) -> None:
    step = job.step(StepKind.RECOVER)
    needs = step.needs | {"teacher.1": step.needs["teacher.0"]}
    twice = attempt(step.model_copy(update={"needs": needs, "key": "twice"}), job.store, 1)
    # The same teacher in turn with itself is that teacher.
    assert torch.equal(arrays.read(twice / "images.npy"), arrays.read(job.folder(StepKind.RECOVER) / "images.npy"))


def test_a_loss_that_is_not_finite_is_named(job: Job) -> None:
    broken = job.store.step("broken-teacher")
    broken.mkdir(parents=True)
    weights = load_file(job.folder(StepKind.TEACH) / "weights.safetensors")
    save_file(
        {name: value * float("nan") if name == "linear.bias" else value for name, value in weights.items()},
        broken / "weights.safetensors",
    )
    (broken / "teacher.json").write_bytes((job.folder(StepKind.TEACH) / "teacher.json").read_bytes())
    step = job.step(StepKind.RECOVER)
    step = step.model_copy(update={"needs": step.needs | {"teacher.0": "broken-teacher"}, "key": "nan"})
    *_, last = perform(step, job.store, out=job.store.attempt("nan", 1), device=CPU)
    assert isinstance(last, Failed) and last.error.code == "nan_loss" and "step 0" in last.error.message
