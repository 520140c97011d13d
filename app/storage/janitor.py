"""What of the store has served its time, by the settings, and its removal. Who only looks removes nothing.

Each thing is looked at again in the moment of its removal. A step that a new job finds in that very moment, and misses
afterwards, is made again (`app.storage.remake`).
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, Select, delete, exists, func, select
from sqlalchemy.orm import aliased

from app import arrivals, audit, sent
from app.models import TERMINAL_JOB_STATES, Event, Job, Preview, Step, StepState, StoredStep, Upload, User, utc_now
from app.services import Services
from app.storage import stored, trash

LEFTOVER_S = 3600.0  # a folder of an attempt that nobody holds is left alone for so long: its engine may be ending
PASSING = ("log", "progress", "metrics")  # kinds of events that a job's story can do without; curves are kept elsewhere
BATCH = 1000  # events removed in one transaction
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One thing that may go."""

    kind: str
    name: str  # a key, a hash, a job's id
    title: str
    size_bytes: int
    remove: Callable[[], None] = field(compare=False, repr=False)


def doomed(services: Services, now: datetime | None = None) -> Iterator[Item]:
    """Everything that may go now, one kind after the other, the oldest first. Nothing is removed by looking."""
    now = now or utc_now()
    for kind, find in KINDS.items():
        if days := getattr(services.settings, f"keep_{kind}_days"):
            yield from find(services, now - timedelta(days=days))


def clean(services: Services, most: int | None = None, now: datetime | None = None) -> list[Item]:
    """Remove what may go, at most so many things. Returns them. An error with one is logged, and the others go on."""
    with services.database.write() as session:
        stored.reconcile(session, services.store)
    shutil.rmtree(services.store.root / "removed", ignore_errors=True)
    gone = []
    for item in list(islice(doomed(services, now), most or services.settings.janitor_most)):
        try:
            item.remove()
        except OSError:
            log.exception("not removed", extra={"kind": item.kind, "name_": item.name})
            continue
        gone.append(item)
        log.info("removed", extra={"kind": item.kind, "name_": item.name, "size_bytes": item.size_bytes})
    return gone


def clean_for(services: Services, admin: User) -> list[Item]:
    """`clean`, as an administrator asked."""
    gone = clean(services)
    with services.database.write() as session:
        audit.note(
            session, admin, "storage.clean", "store", things=len(gone), size_bytes=sum(i.size_bytes for i in gone)
        )
    return gone


@dataclass(slots=True)
class Janitor:
    """A thread that cleans now and then, and outlives every error."""

    services: Services
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="janitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what is being removed is removed at the next start."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _run(self) -> None:
        try:
            with self.services.database.write() as session:
                stored.reconcile(session, self.services.store)
        except Exception:
            log.exception("the store could not be looked through")
        while not self._stopping.wait(self.services.settings.janitor_s):
            try:
                arrivals.clean(self.services)
                clean(self.services)
                self.services.store.trim()
            except Exception:
                log.exception("the janitor failed")


def _trash(services: Services, before: datetime) -> Iterator[Item]:
    """Jobs that were deleted so long ago; what they weigh is what no other job has."""
    with services.database.read() as session:
        found = session.scalars(trash.overdue(before)).all()
        weights = {job.id: _weight(session.scalar(_own_bytes(stored.of_nobody_else(session, job.id)))) for job in found}
    for job in found:
        remove = partial(trash.empty_one, services, job.id, before)
        yield Item(kind="trash", name=job.id, title=job.name, size_bytes=weights[job.id], remove=remove)


def _own_bytes(keys: list[str]) -> Select[int]:
    return select(func.sum(StoredStep.size_bytes)).where(StoredStep.key.in_(keys))


def _weight(found: int | None) -> int:
    return int(found or 0)


def _steps(services: Services, before: datetime) -> Iterator[Item]:
    """Whole steps that no job needs."""
    with services.database.read() as session:
        found = session.scalars(stored.unneeded(before)).all()
        titles: dict[str, str] = dict(
            session.execute(select(Step.key, Step.title).where(Step.key.in_([row.key for row in found]))).all()
        )
    for row in found:
        remove = partial(_remove_step, services, row.key, before)
        title = titles.get(row.key, row.kind)
        yield Item(kind="steps", name=row.key, title=title, size_bytes=row.size_bytes, remove=remove)


def _remove_step(services: Services, key: str, before: datetime) -> None:
    with services.database.write() as session:
        if session.scalar(stored.unneeded(before).where(StoredStep.key == key)) is None:
            return
        stored.forget(session, [key])
    services.store.remove(key)  # after the commit: it may take long


def _work(services: Services, before: datetime) -> Iterator[Item]:
    """What attempts left of steps that nobody works at, and checkpoints of steps that no job still wants."""
    folder = services.store.root / "work"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield from _of_step(services, path, before)


def _of_step(services: Services, path: Path, before: datetime) -> Iterator[Item]:
    with services.database.read() as session:
        wanted = stored.unfinished(session, path.name)
        ended = session.scalar(select(func.max(Job.finished_at)).join(Step).where(Step.key == path.name))
    if not wanted:
        at = ended or datetime.fromtimestamp(path.stat().st_mtime, UTC)
        if at.replace(tzinfo=UTC) < before:
            yield _folder(services, path, before, "checkpoints of a step that no job wants")
        return
    held = {f"attempt-{step.id}-{step.fence}" for step in wanted if step.state == StepState.RUNNING}
    for attempt in path.glob("attempt-*"):
        if attempt.name not in held and time.time() - attempt.stat().st_mtime > LEFTOVER_S:
            yield _folder(services, attempt, before, "left by an attempt that ended badly")


def _folder(services: Services, path: Path, before: datetime, title: str) -> Item:
    name = path.relative_to(services.store.root / "work")

    def remove() -> None:
        again = _of_step(services, services.store.root / "work" / name.parts[0], before)
        if any(item.name == str(name) for item in again):
            shutil.rmtree(path, ignore_errors=True)

    return Item(kind="work", name=str(name), title=title, size_bytes=size_of(path), remove=remove)


def _previews(services: Services, before: datetime) -> Iterator[Item]:
    """Contact sheets of ended jobs, but for the newest of each step."""
    newest = aliased(Preview)
    later = exists().where(newest.step_key == Preview.step_key, newest.x > Preview.x)
    keeps = exists().where(Step.key == Preview.step_key, Step.job_id == Job.id, _still_read(before))
    with services.database.read() as session:
        found = session.scalars(select(Preview).where(later, ~keeps).order_by(Preview.step_key, Preview.x)).all()
    for row in found:
        remove = partial(_remove_preview, services, row.step_key, row.x, row.sha256)
        size = size_of(services.store.blob(row.sha256))
        yield Item(
            kind="previews", name=row.sha256, title=f"a sheet of {row.step_key[:12]}", size_bytes=size, remove=remove
        )


def _remove_preview(services: Services, key: str, x: int, digest: str) -> None:
    with services.database.write() as session:
        session.execute(delete(Preview).where(Preview.step_key == key, Preview.x == x))
        if session.scalar(select(Preview.x).where(Preview.sha256 == digest).limit(1)) is not None:
            return
    services.store.remove_blob(digest)


def _logs(services: Services, before: datetime) -> Iterator[Item]:
    """Passing events of jobs that ended so long ago; what happened to the job stays."""
    with services.database.read() as session:
        query = select(Job.id, Job.name, func.count()).join(Event, Event.job_id == Job.id)
        query = query.where(~_still_read(before), Event.kind.in_(PASSING)).group_by(Job.id, Job.name).order_by(Job.id)
        found = session.execute(query).all()
    for job_id, name, count in found:
        title = f"{count} log lines and progress notes of {name}"
        yield Item(
            kind="logs", name=job_id, title=title, size_bytes=0, remove=partial(_remove_events, services, job_id)
        )


def _remove_events(services: Services, job_id: str) -> None:
    removed = BATCH
    while removed == BATCH:  # short transactions: others write too
        with services.database.write() as session:
            passing = select(Event.seq).where(Event.job_id == job_id, Event.kind.in_(PASSING)).limit(BATCH)
            seqs = list(session.scalars(passing))
            session.execute(delete(Event).where(Event.job_id == job_id, Event.seq.in_(seqs)))
        removed = len(seqs)


def _uploads(services: Services, before: datetime) -> Iterator[Item]:
    """Images and weights that no job used since."""
    with services.database.read() as session:
        found = session.scalars(_unused_uploads(before)).all()
    for row in found:
        remove = partial(_remove_upload, services, row.id, before)
        size = size_of(services.store.uploads / row.id)
        yield Item(kind="uploads", name=row.id, title=row.title, size_bytes=size, remove=remove)


def _unused_uploads(before: datetime) -> Select[Upload]:
    used = exists().where(sent.uses(Upload.id), _still_read(before))
    return select(Upload).where(Upload.created_at < before, ~used).order_by(Upload.created_at)


def _remove_upload(services: Services, upload_id: str, before: datetime) -> None:
    with sent.vanishing(services, upload_id) as vanish, services.database.write() as session:
        row = session.scalar(_unused_uploads(before).where(Upload.id == upload_id))
        if row is not None:
            session.delete(row)
            session.flush()
            vanish()


def _still_read(before: datetime) -> ColumnElement[bool]:
    """Whether a job has not ended, did so lately, or is pinned."""
    return Job.state.not_in(TERMINAL_JOB_STATES) | (Job.finished_at >= before) | Job.pinned_by.is_not(None)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 when it is not there."""
    if path.is_dir():
        return sum(size_of(inner) for inner in path.iterdir() if not inner.is_symlink())
    try:
        return path.stat().st_size
    except OSError:  # somebody was quicker
        return 0


KINDS: dict[str, Callable[[Services, datetime], Iterator[Item]]] = {
    "trash": _trash,
    "steps": _steps,
    "work": _work,
    "previews": _previews,
    "logs": _logs,
    "uploads": _uploads,
}
