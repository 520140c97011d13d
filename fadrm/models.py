"""What a server answers, as far as this client reads it. A field that a newer server adds is kept as it came.

`tests/fadrm/test_models.py` holds every model to the server's own.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})  # states in which nothing more happens


class Answer(BaseModel):
    """One JSON object of the API."""

    model_config = ConfigDict(frozen=True, extra="allow")


class FieldError(Answer):
    """One thing that is wrong with a request."""

    pointer: str = ""
    parameter: str = ""
    code: str
    detail: str
    hint: str = ""


class Problem(Answer):
    """An error, as RFC 9457 has it, with a code for programs and a hint for people."""

    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str = ""
    request_id: str = ""
    errors: list[FieldError] = []
    details: dict[str, Any] = {}


class Failure(Answer):
    """Why a job or a step failed."""

    code: str
    message: str
    hint: str = ""
    step: str = ""
    kind: str = ""


class Owner(Answer):
    """A user."""

    id: str
    name: str


class Stage(Answer):
    """The steps of one kind; progress is 0 to 1."""

    kind: str
    title: str
    state: str
    progress: float
    steps: int
    whole: int
    cached: bool
    seconds: float | None


class Step(Answer):
    """One step of a job."""

    key: str
    kind: str
    title: str
    state: str
    cached: bool
    progress: float
    done: int
    total: int
    unit: str
    worker: str | None
    seconds: float | None
    error: Failure | None


class PlannedStep(Answer):
    """A step that the job would have."""

    kind: str
    title: str
    key: str
    cached: bool
    flop: float
    size_bytes: int


class Estimate(Answer):
    """What the steps that are not cached cost; seconds by device, on one worker."""

    flop: float
    size_bytes: int
    seconds: dict[str, float]
    host_bytes: int = 0
    device_bytes: int = 0


class Plan(Answer):
    """What a job would do."""

    name: str
    spec: dict[str, Any]
    dataset: dict[str, Any]
    steps: list[PlannedStep]
    estimate: Estimate
    starts_in_minutes: int | None = None
    warnings: list[str]


class Run(Answer):
    """One student; accuracies are top-1 on the real test set, %."""

    state: str
    last: float | None
    chosen: float | None
    best: float | None
    seconds: float | None


class Row(Answer):
    """One line of the score card; mean and std are of the last epoch, %."""

    subject: str
    title: str
    student: str
    labels: str
    ipc: int
    n: int
    planned: int
    mean: float | None
    std: float | None
    last: list[float]
    chosen_mean: float | None
    best_mean: float | None
    runs: list[Run]


class Teacher(Answer):
    """One teacher; its accuracy on the real test set, %."""

    network: str
    state: str
    top1_pct: float | None


class Results(Answer):
    """The score card of a job."""

    complete: bool
    rows: list[Row]
    teachers: list[Teacher]
    verdicts: list[str]

    def _repr_html_(self) -> str:
        from fadrm import notebook

        return notebook.score_card(self)


class File(Answer):
    """A file to download."""

    name: str
    ipc: int
    form: str
    size_bytes: int
    sha256: str
    url: str


class Link(Answer):
    """A link that hands a file to whoever has it, without a login."""

    url: str
    name: str
    sha256: str
    size_bytes: int
    expires_at: datetime


class Export(Answer):
    """A download in another form, asked for after the job: ready, or being written by a job of its own."""

    form: str
    ipc: int
    state: str
    job: str | None
    artifact: File | None


class Files(Answer):
    """The files of a job: the largest ipc first, and of each the package first; and the forms that are being written."""

    ready: bool
    data: list[File]
    building: list[Export] = Field(default_factory=list)


class Event(Answer):
    """One event of a job, numbered without gap."""

    seq: int
    kind: str
    job_id: str
    step_id: int | None
    at: datetime
    data: dict[str, Any]


class EventPage(Answer):
    """Events in order of their numbers."""

    data: list[Event]
    has_more: bool
    last_seq: int


class LogLine(Answer):
    """A line of a job's log."""

    seq: int
    at: datetime
    level: str
    step: str | None
    message: str


class LogPage(Answer):
    """Lines in order."""

    data: list[LogLine]
    has_more: bool
    last_seq: int


class Preview(Answer):
    """A contact sheet: tiles in row order, `columns` a row, each `tile` px wide; x is the iteration."""

    x: int
    total: int
    url: str
    sha256: str
    columns: int
    tile: int
    names: list[str]


class Sheets(Answer):
    """The contact sheets of one step."""

    key: str
    kind: str
    previews: list[Preview]


class Previews(Answer):
    """The contact sheets of a job."""

    data: list[Sheets]


class Upload(Answer):
    """A data set that was uploaded; `dataset` is what to write under `dataset` in a spec."""

    id: str
    title: str
    owner: str
    size_bytes: int
    classes: list[str]
    train_per_class: list[int]
    test_per_class: list[int]
    has_test: bool
    skipped: int = 0
    dataset: dict[str, Any]


class Weights(Answer):
    """Weights that were uploaded; `teacher` is what to write under `teachers` in a spec."""

    id: str
    title: str
    owner: str
    network: str
    classes: int
    sides: str
    size_bytes: int
    visibility: str
    teacher: dict[str, Any]


class DataSet(Answer):
    """A data set that jobs may use; `dataset` is what to write under `dataset` in a spec."""

    title: str
    dataset: dict[str, Any]
    classes: int | None
    note: str = ""


class Preset(Answer):
    """A job to start from."""

    name: str
    title: str
    note: str
    spec: dict[str, Any]


class Worker(Answer):
    """A worker as it last said of itself."""

    id: str
    device: str
    device_name: str
    version: str
    online: bool
    age_seconds: float
    step: str | None
    job_id: str | None
    draining_by: str | None = None
    host_free_bytes: int | None = None
    device_free_bytes: int | None = None


class Axis(Answer):
    """What varies in a sweep."""

    name: str
    titles: list[str]


class CellScore(Answer):
    """What students of one kind reached on one subject of one job, %."""

    subject: str
    title: str
    student: str
    labels: str
    n: int
    mean: float | None
    std: float | None
    best_mean: float | None


class Cell(Answer):
    """One job of a sweep: axis -> title of its value, and its scores."""

    job_id: str
    name: str
    values: dict[str, str]
    state: str
    progress: float
    scores: list[CellScore]


class PlannedJob(Answer):
    """One job that a sweep would make."""

    name: str
    values: dict[str, str]
    steps: int
    new_steps: int


class SweepPlan(Answer):
    """What a sweep would do."""

    name: str
    jobs: list[PlannedJob]
    steps: int
    shared: int
    cached: int
    estimate: Estimate
    warnings: list[str]


class Table(Answer):
    """A sweep as a table: a row a job."""

    student: str
    labels: str
    columns: list[str]
    rows: list[list[str | float | int | None]]
