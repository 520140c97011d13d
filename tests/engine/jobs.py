"""A job of a few seconds, and steps that are interrupted again and again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from engine.datasets import describe
from engine.errors import Drained
from engine.events import Event, Failed, Finished
from engine.methods import Fadrm, Patches
from engine.plan import Plan, Step, StepKind, plan
from engine.run import perform, run
from engine.sources import Digits
from engine.spec import Evaluation, JobSpec, Labels, Resources, Teacher
from engine.store import MANIFEST, Store, sha256_of_file

CPU = torch.device("cpu")
SMALL = "convnet3_w32"
SPEC = JobSpec(
    dataset=Digits(resolution=8),
    ipc=2,
    method=Fadrm(budgets=(3, 2), batch=6),
    teachers=(Teacher(network=SMALL, epochs=2, batch_size=128, optimizer="adamw", lr=0.01),),
    patches=Patches(difficulty="easy", candidates=8, crops=2),
    labels=Labels(epochs=6, batch_size=7),
    evaluation=Evaluation(students=(SMALL,), runs=2, baselines=("random",), lr=0.01, every=2),
    resources=Resources(ipcs_per_step=2),
    flip=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job and its whole steps."""

    spec: JobSpec
    store: Store
    plan: Plan
    events: list[tuple[Step, Event]]

    def step(self, kind: StepKind) -> Step:
        """The first step of a kind."""
        return next(step for step in self.plan.steps if step.kind == kind)

    def folder(self, kind: StepKind) -> Path:
        return self.store.step(self.step(kind).key)

    def told(self, kind: StepKind) -> list[Event]:
        """The events of the first step of a kind."""
        key = self.step(kind).key
        return [event for step, event in self.events if step.key == key]


def carried_out(spec: JobSpec, root: Path, device: torch.device = CPU) -> Job:
    """Do a whole job in this process."""
    store = Store(root)
    planned = plan(spec, describe(spec.dataset))
    events = list(run(planned, store, device=device))
    failed = [event.error for _, event in events if isinstance(event, Failed)]
    assert not failed, failed
    return Job(spec=spec, store=store, plan=planned, events=events)


def attempt(
    step: Step,
    store: Store,
    number: int,
    *,
    stop: Callable[[], bool] = bool,
    checkpoint_s: float = 60,
    device: torch.device = CPU,
) -> Path:
    """Do a step anew, without publishing it."""
    out = store.attempt(step.key, number)
    events = list(perform(step, store, out=out, attempt=number, device=device, stop=stop, checkpoint_s=checkpoint_s))
    assert isinstance(events[-1], Finished), events[-1]
    return out


def interrupted(step: Step, store: Store, *, every: int, device: torch.device = CPU) -> tuple[Path, int]:
    """Do a step in attempts that are stopped at every so many safe places; where it is whole, and how many there were."""
    for number in range(1, 1000):
        asked = iter(range(1_000_000))
        try:
            return attempt(step, store, number, stop=partial(_stops, asked, every), device=device), number
        except Drained:
            continue
    raise AssertionError("it never ends")


def _stops(asked: object, every: int) -> bool:
    assert hasattr(asked, "__next__")
    return bool(next(asked) + 1 >= every)


def contents(folder: Path) -> dict[str, str]:
    """Path -> hash of all that a step leaves, but for previews, which an interrupted attempt takes with it."""
    return {
        str(path.relative_to(folder)): sha256_of_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.parent.name != "previews"
    }
