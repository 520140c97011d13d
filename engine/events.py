"""What a running step tells. The engine yields these; whoever consumes them decides what to do.

Across a process boundary they travel as JSON lines: `event.model_dump_json()` and `parse(line)`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from engine.errors import ErrorReport


class _Event(BaseModel):
    """Every event says what it is in `type`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Started(_Event):
    """A step began, or went on from a checkpoint (`resumed_at` units already done)."""

    type: Literal["started"] = "started"
    total: int  # units of work in this step
    unit: str  # "images", "classes", "epochs", "image-iterations"
    resumed_at: int = 0
    device: str = "cpu"


class Progress(_Event):
    """How far the step is, in the units that `Started` named."""

    type: Literal["progress"] = "progress"
    done: int
    total: int
    unit: str


class Metric(_Event):
    """Values at one place of one curve: x is an iteration or an epoch, or the ipc of `recover.loss_end`; all from 0."""

    type: Literal["metric"] = "metric"
    x: int
    values: dict[str, float]  # e.g. {"recover.loss": 2.1, "recover.loss_ce": 0.9}


class Injection(_Event):
    """The source patches were mixed into the images after this iteration (a residual connection, eq. 9 and 10)."""

    type: Literal["injection"] = "injection"
    x: int
    alpha: float
    size_from: int  # px
    size_to: int  # px


class Preview(_Event):
    """A contact sheet of images as they are now: one PNG, `columns` tiles of `tile` px a row, in row order."""

    type: Literal["preview"] = "preview"
    x: int  # iteration; 0 shows the patches that the images start from
    total: int
    file: str  # path relative to the step's output folder
    columns: int
    tile: int
    labels: list[int]  # class index of each tile
    names: list[str]  # what each tile is, e.g. "7 · ipc 3"


class Log(_Event):
    """A line for the reader of the job's log."""

    type: Literal["log"] = "log"
    message: str
    level: Literal["info", "warning", "error"] = "info"


class Checkpointed(_Event):
    """A checkpoint is safe on disk: a crash from here on repeats only what follows."""

    type: Literal["checkpointed"] = "checkpointed"
    done: int


class Finished(_Event):
    """The step is whole: its manifest is written. `result` is the manifest's result."""

    type: Literal["finished"] = "finished"
    result: dict[str, Any]
    seconds: float


class Failed(_Event):
    """The step cannot be done."""

    type: Literal["failed"] = "failed"
    error: ErrorReport


Event = Annotated[
    Started | Progress | Metric | Injection | Preview | Log | Checkpointed | Finished | Failed,
    Field(discriminator="type"),
]
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse(line: str | bytes) -> Event:
    """One JSON line as an event. Raises pydantic.ValidationError when it is none."""
    return _ADAPTER.validate_json(line)
