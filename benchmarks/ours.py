"""The engine's side: the very steps that a job is made of, on what was planted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.plain.reading import SAMPLE
from benchmarks.planted import steps_of, store_of
from benchmarks.task import Task
from engine import arrays
from engine.events import Event, Failed, Finished, Metric, Progress
from engine.plan import Step
from engine.run import perform

IN_EPOCHS = ("labels", "student", "teach")  # these tell epochs where images are counted
TOLD = ("recover.loss", "evaluate.loss", "teach.loss")


def engine(task: Task) -> Iterator[int]:
    """The step; tells units at each progress that it tells."""
    step = steps_of(task)[0]
    factor = task.workload.seen if task.workload.kind in IN_EPOCHS else 1
    out = fresh(task, step)
    for event in events(task, step, out):
        if isinstance(event, Progress):
            yield event.done * factor
        if task.checking and isinstance(event, Metric):
            for name in TOLD:
                if name in event.values:
                    task.tell(name, event.values[name])
        if task.checking and isinstance(event, Finished):
            _tell_arrays(task, out)


def fresh(task: Task, step: Step, attempt: int | None = None) -> Path:
    """An empty folder, and no checkpoint from before."""
    store = store_of(task)
    if attempt is None:
        shutil.rmtree(store.root / "work" / step.key, ignore_errors=True)
    return store.attempt(step.key, os.getpid() if attempt is None else attempt)


def events(task: Task, step: Step, out: Path) -> Iterator[Event]:
    """All that the step tells. Raises RuntimeError when it cannot be done."""
    for event in perform(step, store_of(task), out=out, device=task.device):
        if isinstance(event, Failed):
            raise RuntimeError(event.error.message)  # noqa: TRY004 - an event, told as an error
        yield event


def _tell_arrays(task: Task, out: Path) -> None:
    match task.workload.kind:
        case "recover":
            task.tell("images", *arrays.read(out / "images.npy").float().flatten().tolist())
        case "labels":
            task.tell("logits", *arrays.read(out / "logits.npy").float().flatten().tolist())
        case "read":
            for split in ("train", "test"):
                pixels = arrays.read(out / f"{split}.npy").flatten()[::SAMPLE]
                task.tell("pixels", *pixels.float().tolist())
        case _:
            pass
