"""Everything that the page of one job shows, read in one session."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import estimates, views
from app.jobs import steps_of
from app.models import Event, Job, Step, Sweep, User
from app.pages import copies, failure
from app.pages.scorecard import card
from app.views import AttemptOut
from app.views.curves import CurvesOut
from app.views.downloads import PACKAGE, ArtifactOut, ArtifactsOut
from app.views.history import LOG_KINDS, LogLine, log_line
from engine.plan import StepKind
from engine.spec import Export
from engine.store import Store
from fadrm.words import size

LOG_LINES = 300
LAST_WORDS = 20
CURVE_NAMES = {
    "recover": {
        "recover.loss": "Total",
        "recover.loss_ce": "Cross-entropy",
        "recover.loss_bn": "Batch norm, unweighted",
    },
    "teach": {"teach.loss": "Training loss", "teach.top1": "Accuracy on the test set, %"},
    "evaluate": {"evaluate.top1": "Accuracy, %"},
    "continual": {"continual.top1": "Accuracy on the classes so far, %"},
}
PLACES = {"recover": "recover", "teach": "teacher", "evaluate": "students", "continual": "continual"}  # step -> chart
DENSITY = "recover.entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveSummary:
    """A curve in one line of a table: what a reader has without scripts."""

    title: str
    count: int
    first: float
    last: float
    least: float
    greatest: float

    @classmethod
    def of(cls, title: str, points: Sequence[tuple[float, float]]) -> Iterator[Self]:
        """A line, where the curve has points."""
        values = [value for _, value in points]
        if values:
            yield cls(
                title=title,
                count=len(values),
                first=values[0],
                last=values[-1],
                least=min(values),
                greatest=max(values),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Seconds as they were estimated, beside those taken."""

    device: str
    stages: dict[str, float]  # by kind of step
    steps: dict[str, float]  # by key


def whole(session: Session, store: Store, job: Job, user: User, base_url: str) -> dict[str, Any]:
    """The context of the page."""
    return live_parts(session, store, job, user, base_url) | {
        "curves": _curves(session, job),
        "log": log_tail(session, job, LOG_LINES),
        "spec_yaml": yaml.safe_dump(job.spec, sort_keys=False, allow_unicode=True),
        "commands": copies.commands(job, base_url),
        "origin": copies.origin(job.spec),
        **_sheets(session, job),
    }


def live_parts(session: Session, store: Store, job: Job, user: User, base_url: str) -> dict[str, Any]:
    """The context of those parts that are rendered again while the job runs."""
    out, results = views.job_out(session, job), views.results(session, job)
    files = views.artifacts(session, store, job, user)
    steps, attempts = steps_of(session, job.id), views.attempts(session, job)
    archive = max(files.data, key=lambda file: (file.form == PACKAGE, file.ipc, file.size_bytes), default=None)
    return {
        "job": out,
        "spec": job.spec,
        "sweep_name": session.scalar(select(Sweep.name).where(Sweep.id == job.sweep_id)) if job.sweep_id else None,
        "students": list(dict.fromkeys(row.student for row in results.rows)),
        "results": results,
        "card": card(results),
        "files": files,
        "archive": archive,
        "offers": _offers(files, job),
        "fetch": _fetch(archive, base_url) if archive else "",
        "use": _use(archive) if archive else "",
        "attempts": attempts,
        "planned": planned(steps, attempts),
        "tables": copies.tables(results),
        "edition": views.edition(job),
        "failure": failure.card(job.error, job.spec, size) if job.error else None,
        "step_ids": {step.key: step.id for step in steps},
        "last_words": log_tail(session, job, LAST_WORDS) if out.error else [],
    }


def _offers(files: ArtifactsOut, job: Job) -> list[tuple[str, int]]:
    """Forms and ipcs of the job's downloads that nobody asked for yet."""
    known = {(file.form, file.ipc) for file in files.data} | {(one.form, one.ipc) for one in files.building}
    packed = [file.ipc for file in files.data if file.form == PACKAGE and file.name.endswith(".zip")]
    forms = [form for form in get_args(Export) if not (form == "fkd" and job.spec["labels"]["recipe_only"])]
    return [(form, ipc) for ipc in packed for form in forms if (form, ipc) not in known]


def planned(steps: Sequence[Step], attempts: Sequence[AttemptOut]) -> Planned:
    """What the plan took these steps to need, on the kind of device that they ran on; a CPU where none has run."""
    device = "gpu" if any(attempt.device.startswith("cuda") for attempt in attempts) else "cpu"
    own = [step for step in steps if not step.cached]
    by_kind: dict[str, list[Step]] = {}
    for step in own:
        by_kind.setdefault(step.kind, []).append(step)
    return Planned(
        device="GPU" if device == "gpu" else "CPU",
        stages={kind: estimates.seconds(found, begun=True)[device] for kind, found in by_kind.items()},
        steps={step.key: estimates.seconds([step], begun=True)[device] for step in own},
    )


def log_tail(session: Session, job: Job, count: int) -> list[LogLine]:
    """The newest lines of a job's log, in order."""
    query = select(Event).where(Event.job_id == job.id, Event.kind.in_(LOG_KINDS)).order_by(Event.seq.desc())
    titles = dict(session.execute(select(Step.id, Step.title).where(Step.job_id == job.id)).all())
    return [log_line(event, titles) for event in reversed(session.scalars(query.limit(count)).all())]


def _sheets(session: Session, job: Job) -> dict[str, Any]:
    """The newest contact sheet, and those before it."""
    steps = sorted(views.previews(session, job).data, key=lambda step: step.kind != StepKind.RECOVER)
    found = steps[0].previews if steps else []
    return {"sheet": found[-1] if found else None, "sheets": found[:-1]}


def _curves(session: Session, job: Job) -> dict[str, list[CurveSummary]]:
    """Per chart, its curves in short."""
    charts: dict[str, list[CurveSummary]] = {name: [] for name in (*PLACES.values(), "density")}
    for curves in views.metrics(session, job).data:
        if curves.kind in PLACES:
            charts[PLACES[curves.kind]].extend(_summaries(curves))
        if curves.kind == StepKind.RECOVER:
            density = curves.series.get(DENSITY, ())
            charts["density"].extend(CurveSummary.of(f"Entropy, bits ({curves.title})", density))
    return charts


def _summaries(curves: CurvesOut) -> Iterator[CurveSummary]:
    for name, title in CURVE_NAMES[curves.kind].items():
        judged = curves.kind in ("evaluate", "continual")
        told = curves.title if judged else f"{title} ({curves.title})"
        yield from CurveSummary.of(told, curves.series.get(name, ()))


def _fetch(file: ArtifactOut, base_url: str) -> str:
    name = shlex.quote(file.name)
    return (
        f'curl -C - -o {name} -H "Authorization: Bearer $FADRM_TOKEN" \\\n'
        f"  {shlex.quote(base_url.rstrip('/') + file.url)}\n"
        f"echo '{file.sha256}  {file.name}' | sha256sum -c"
    )


def _use(file: ArtifactOut) -> str:
    folder = shlex.quote(file.name.rpartition(".")[0] or "distilled")
    return f"unzip {shlex.quote(file.name)} -d {folder}\ncd {folder}\npython train.py"
