"""What a plan is: steps, each with a key that says what it is made from, and how the score card reads. Torch-free."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel


class StepKind(StrEnum):
    """In the order in which a job goes through them."""

    PREPARE = "prepare"  # decode the real images once
    TEACH = "teach"  # train a network on them
    OBSERVE = "observe"  # statistics of the real images inside a teacher
    SELECT = "select"  # choose patches, or whole images
    RECOVER = "recover"  # optimise the synthetic images
    RELABEL = "relabel"  # the teachers' soft labels
    EVALUATE = "evaluate"  # train and test a student
    CONTINUAL = "continual"  # the same, as classes come in groups
    PACKAGE = "package"  # make the download
    EXPORT = "export"  # the download in another form


# Raised when a kind's code comes to give other bytes for equal params: keys change, and old output is not taken for new.
CODE_VERSIONS = (
    dict.fromkeys(StepKind, 2) | dict.fromkeys((StepKind.PREPARE, StepKind.EXPORT), 1) | {StepKind.PACKAGE: 5}
)


class Step(BaseModel, frozen=True):
    """One unit of work: claimed, leased, checkpointed, cached and retried by itself."""

    key: str
    kind: StepKind
    title: str
    params: dict[str, Any]
    needs: dict[str, str]  # role -> key
    flop: float  # estimated floating-point operations, 2 a multiply-add
    size_bytes: int  # estimated output
    host_bytes: int = 0  # estimated memory of its engine process; 0: nobody knows
    device_bytes: int = 0  # estimated memory of its tensors on the device, which may be the CPU


class Row(BaseModel, frozen=True):
    """One line of the score card: a subject judged by one kind of student, once a run."""

    subject: str  # "distilled", "rded", "patches", "random", "herding"
    student: str
    labels: str  # "soft", "hard"
    ipc: int
    runs: tuple[str, ...]  # keys of the evaluate steps


class ContinualRow(BaseModel, frozen=True):
    """One curve of class-incremental learning: a subject, once a run."""

    subject: str
    student: str
    steps: int  # groups of classes
    ipc: int
    runs: tuple[str, ...]  # keys of the continual steps


class Plan(BaseModel, frozen=True):
    """The steps of a job, each after those it needs, and how its score card reads."""

    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    continual: tuple[ContinualRow, ...] = ()
    package: str  # key of the package step of the job's own ipc

    @property
    def flop(self) -> float:
        return sum(step.flop for step in self.steps)

    @property
    def size_bytes(self) -> int:
        return sum(step.size_bytes for step in self.steps)
