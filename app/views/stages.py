"""The bar of a job: its steps by kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from pydantic import Field

from app.models import Step, StepState
from app.views.out import Out
from engine.plan import StepKind
from engine.plan.draft import KIND_ORDER

STAGE_TITLES = {
    StepKind.PREPARE: "Images",
    StepKind.TEACH: "Teacher",
    StepKind.OBSERVE: "Statistics",
    StepKind.SELECT: "Patches",
    StepKind.RECOVER: "Recover",
    StepKind.RELABEL: "Labels",
    StepKind.EVALUATE: "Students",
    StepKind.CONTINUAL: "Continual",
    StepKind.PACKAGE: "Download",
    StepKind.EXPORT: "Exports",
}


class StageOut(Out):
    """The steps of one kind, as one segment of the job's bar."""

    kind: str
    title: str
    state: str
    progress: float = Field(ge=0, le=1)
    steps: int
    whole: int = Field(description="How many of the steps are done.")
    cached: bool = Field(description="All of them were found whole, made by an earlier job.")
    seconds: float | None


def fraction(step: Step) -> float:
    """How much of a step is done, 0..1."""
    if step.state == StepState.SUCCEEDED:
        return 1.0
    return min(step.done / step.total, 1.0) if step.total else 0.0


def stages(steps: Iterable[Step]) -> list[StageOut]:
    """The bar of a job: its steps by kind, in the order in which a job goes through them."""
    ordered = sorted(steps, key=lambda step: (KIND_ORDER[StepKind(step.kind)], step.position))
    return [_stage(StepKind(kind), list(members)) for kind, members in groupby(ordered, key=lambda step: step.kind)]


def _stage(kind: StepKind, steps: Sequence[Step]) -> StageOut:
    times = [step.seconds for step in steps if step.seconds is not None and not step.cached]
    return StageOut(
        kind=kind,
        title=STAGE_TITLES[kind],
        state=stage_state([step.state for step in steps]),
        progress=round(sum(map(fraction, steps)) / len(steps), 4),
        steps=len(steps),
        whole=sum(step.state == StepState.SUCCEEDED for step in steps),
        cached=all(step.cached for step in steps),
        seconds=sum(times) if times else None,
    )


def stage_state(states: Sequence[str]) -> str:
    """One word for several steps: the worst news first, then what moves, then what waits."""
    for state in (StepState.FAILED, StepState.RUNNING, StepState.CANCELLED, StepState.QUEUED):
        if state in states:
            return state
    return StepState.SUCCEEDED
