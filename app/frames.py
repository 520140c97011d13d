"""Events as they are sent: the text/event-stream format, and the queries that read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, func, or_, select

from app.db import Database
from app.models import TERMINAL_JOB_STATES, Event, Job, JobState

RECENT = 2000  # events of a job that are worth keeping at hand
PAGE = 1000  # events that one read takes
AT_ONCE = 200  # jobs in one query
RETRY = b"retry: 3000\n\n"
PING = b": ping\n\n"
PING_EVENT = b"event: ping\ndata: {}\n\n"  # scripts of a page do not see comments
COLUMNS = (Event.job_id, Event.seq, Event.kind, Event.step_id, Event.at, Event.data)


class Frame(NamedTuple):
    """An event as it is sent, but for its id."""

    seq: int
    body: bytes
    ends: str  # the job's last state, when this is its last event unless it was tried again
    at: datetime


def frame(event: str, data: Any, id_: str = "") -> bytes:
    """One event, whole."""
    return _body(event, data) + (f"id: {id_}\n\n".encode() if id_ else b"\n")


def _body(event: str, data: Any) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {event}\ndata: {text}\n".encode()


def _frame_of(row: Any) -> Frame:
    data = {name: getattr(row, name) for name in ("seq", "kind", "job_id", "step_id", "data")}
    state = row.data.get("state") if row.kind == "job" else ""
    ends = state if state in TERMINAL_JOB_STATES else ""
    return Frame(row.seq, _body(row.kind, data | {"at": row.at.isoformat()}), ends, row.at)


def read_frames(database: Database, job_id: str, after: int) -> list[Frame]:
    """The next events of one job."""
    query = select(*COLUMNS).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(PAGE)
    with database.read() as session:
        return [_frame_of(row) for row in session.execute(query)]


def read_news(database: Database, heads: dict[str, int]) -> dict[str, tuple[int, list[Frame]]]:
    """Of the jobs that went on past these numbers: their last number and the events, none when there are too many."""
    found: dict[str, tuple[int, list[Frame]]] = {}
    ids = list(heads)
    with database.read() as session:
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            seqs = session.execute(select(Job.id, Job.last_seq).where(Job.id.in_(some)))
            ahead = {id_: seq for id_, seq in seqs if seq > heads[id_]}
            found |= {id_: (seq, []) for id_, seq in ahead.items()}
            few = [id_ for id_, seq in ahead.items() if seq - heads[id_] <= RECENT]
            if few:
                behind = or_(*(and_(Event.job_id == id_, Event.seq > heads[id_]) for id_ in few))
                for row in session.execute(select(*COLUMNS).where(behind).order_by(Event.job_id, Event.seq)):
                    found[row.job_id][1].append(_frame_of(row))
    return found


def read_changes(database: Database, known: Sequence[str], newest: str) -> Sequence[Any]:
    """Unfinished jobs, those that were so at the last look, and those that came since."""
    unfinished = Job.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.PAUSED])
    since = Job.id > newest if newest else Job.id == select(func.max(Job.id)).scalar_subquery()
    wanted = or_(unfinished, Job.id.in_(known), since)
    with database.read() as session:
        return session.execute(
            select(Job.id, Job.owner_id, Job.visibility, Job.state, Job.last_seq).where(wanted).order_by(Job.id)
        ).all()


def hint_of(row: Any) -> dict[str, Any]:
    """That a job changed, and to which state."""
    return {"id": row.id, "state": row.state, "version": row.last_seq}
