"""What happened to a job: its events, its log in words, its attempts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.models import Attempt, Event, Job, Step
from app.views.out import Out
from fadrm.words import duration

CONTROL_KINDS = ("cancel", "pause", "resume", "retry", "change")  # what people did
LOG_KINDS = ("job", "step", *CONTROL_KINDS, "started", "injection", "checkpoint", "log")


class EventOut(Out):
    """One event of a job, numbered without gap."""

    seq: int
    kind: str = Field(
        description="job, step, started, progress, metrics, injection, preview, checkpoint, log, and what people did: "
        "cancel, pause, resume, retry, change."
    )
    job_id: str
    step_id: int | None
    at: datetime
    data: dict[str, Any]


class EventPage(Out):
    """Events in order of their numbers."""

    data: list[EventOut]
    has_more: bool
    last_seq: int = Field(description="Number of the last event here; give it as after_seq for the next page.")


class LogLine(Out):
    """An event as a line for people."""

    seq: int
    at: datetime
    level: str
    step: str | None
    message: str


class LogPage(Out):
    """Lines in order."""

    data: list[LogLine]
    has_more: bool
    last_seq: int


class AttemptOut(Out):
    """One try of one step."""

    step: str
    kind: str
    key: str
    fence: int
    worker: str
    host: str
    device: str
    outcome: str | None = Field(
        description="succeeded, cached, failed, crashed, lost, released, cancelled; null while it runs."
    )
    detail: str | None
    started_at: datetime
    finished_at: datetime | None


def event_out(event: Event) -> EventOut:
    """One event."""
    return EventOut.model_validate(event, from_attributes=True)


def events(session: Session, job: Job, *, after_seq: int = 0, limit: int = 500, kinds: Sequence[str] = ()) -> EventPage:
    """Events past a number. kinds: only these."""
    found = _events(session, job.id, after_seq, limit + 1, kinds)
    shown = found[:limit]
    return EventPage(
        data=[event_out(event) for event in shown],
        has_more=len(found) > limit,
        last_seq=shown[-1].seq if shown else after_seq,
    )


def _events(session: Session, job_id: str, after_seq: int, limit: int, kinds: Sequence[str]) -> list[Event]:
    query = select(Event).where(Event.job_id == job_id, Event.seq > after_seq)
    if kinds:
        query = query.where(Event.kind.in_(kinds))
    return list(session.scalars(query.order_by(Event.seq).limit(limit)))


def log(session: Session, job: Job, *, after_seq: int = 0, limit: int = 1000) -> LogPage:
    """The log of a job: what its steps said, and what became of them."""
    found = _events(session, job.id, after_seq, limit + 1, LOG_KINDS)
    shown = found[:limit]
    titles = dict(session.execute(select(Step.id, Step.title).where(Step.job_id == job.id)).all())
    return LogPage(
        data=[log_line(event, titles) for event in shown],
        has_more=len(found) > limit,
        last_seq=shown[-1].seq if shown else after_seq,
    )


def log_line(event: Event, titles: dict[int, str]) -> LogLine:
    """An event in words."""
    level, message = _words(event.kind, event.data)
    step = titles.get(event.step_id) if event.step_id is not None else None
    return LogLine(seq=event.seq, at=event.at, level=level, step=step, message=message)


def _words(kind: str, data: dict[str, Any]) -> tuple[str, str]:
    """Level and sentence."""
    level, message = str(data.get("level", "info")), str(data.get("message", kind))
    match kind:
        case "job":
            failed = (data.get("error") or {}).get("message")
            level, message = ("error", f"Job failed: {failed}") if failed else ("info", f"Job {data['state']}.")
        case "step":
            level, message = _step_words(data)
        case "cancel":
            level, message = "warning", f"{data['by']} asked for the job to be cancelled."
        case "pause":
            message = f"{data['by']} paused the job."
        case "resume":
            message = f"{data['by']} let the job go on."
        case "retry":
            message = f"{data['by']} had {data['steps']} {'step' if data['steps'] == 1 else 'steps'} tried again."
        case "change":
            told = " and ".join(f"{field} to {value}" for field, value in data.items() if field != "by")
            message = f"{data['by']} changed the {told}."
        case "started":
            resumed = f", going on at {data['resumed_at']}" if data.get("resumed_at") else ""
            message = f"{data['total']} {data['unit']} on {data['device']}{resumed}."
        case "injection":
            sizes = f"{data['size_from']} to {data['size_to']} px"
            message = f"Patches mixed in after iteration {data['x']} (alpha {data['alpha']}, {sizes})."
        case "checkpoint":
            message = f"Checkpoint at {data['done']}."
    return level, message


def _step_words(data: dict[str, Any]) -> tuple[str, str]:
    outcome = data.get("outcome")
    if outcome is None:
        again = f", attempt {data['attempt']}" if data.get("attempt", 1) > 1 else ""
        return "info", f"Begun by {data.get('worker')}{again}."
    if data.get("error"):
        return "error", str(data["error"]["message"])
    if outcome == "succeeded":
        return "info", f"Done in {duration(data.get('seconds') or 0)}."
    if outcome == "cached":
        return "info", "Found in the store, made by an earlier job."
    if outcome == "again":
        return "warning", str(data["detail"])
    level = "info" if outcome in {"released", "cancelled"} else "warning"
    return level, f"Attempt {outcome}. {data.get('detail') or ''}".strip()


def attempts(session: Session, job: Job) -> list[AttemptOut]:
    """Every try of every step, oldest first."""
    query = select(Attempt, Step).join(Step, Step.id == Attempt.step_id).where(Step.job_id == job.id)
    names = ("fence", "worker", "host", "device", "outcome", "detail", "started_at", "finished_at")
    return [
        AttemptOut(step=step.title, kind=step.kind, key=step.key, **{name: getattr(attempt, name) for name in names})
        for attempt, step in session.execute(query.order_by(Attempt.started_at, Attempt.step_id, Attempt.fence))
    ]
