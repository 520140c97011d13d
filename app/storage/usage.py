"""What the store holds, by kind, by user and by job, and what the janitor would free: for the API, the page and the CLI."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from pydantic import Field
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from app import jobs
from app.models import Job, Step, StoredStep, Upload, UploadKind, User
from app.services import Services
from app.storage import janitor, room
from app.storage.janitor import Item, size_of
from app.views.out import Out

MOST_JOBS = 50
MOST_ITEMS = 200
TITLES = {
    "prepare": "Prepared data sets",
    "teach": "Teachers",
    "observe": "Statistics of teachers",
    "select": "Patches",
    "recover": "Distilled images",
    "relabel": "Soft labels",
    "evaluate": "Students",
    "continual": "Students on classes in groups",
    "package": "Downloads",
    "export": "Downloads in other forms",
    "work": "Running steps and checkpoints",
    "previews": "Contact sheets",
    "uploads": "Uploaded images",
    "weights": "Uploaded weights of teachers",
    "downloads": "Fetched data sets and weights",
    "steps": "Steps that no job needs",
    "trash": "Deleted jobs",
    "logs": "Old log lines",
}


class KindOut(Out):
    """One kind of things."""

    kind: str
    title: str
    count: int
    size_bytes: int


class DiskOut(Out):
    """The disk that the store lies on."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int = Field(description="Kept free.")
    is_full: bool = Field(description="At its reserve: nothing is taken or begun.")


class HolderOut(Out):
    """What the jobs of a user hold: a step that several users have counts for each of them."""

    name: str
    jobs: int
    size_bytes: int
    limit_bytes: int | None = Field(description="What they may hold; null: there is no limit.")


class JobUsageOut(Out):
    """What a job holds."""

    id: str
    name: str
    owner: str
    state: str
    pinned_by: str | None
    size_bytes: int = Field(description="Of all its steps.")
    own_bytes: int = Field(description="Of those that no other job has: what goes when it is removed.")


class ItemOut(Out):
    """One thing that the janitor would remove, or did."""

    kind: str
    name: str
    title: str
    size_bytes: int


class UsageOut(Out):
    """The store, as a user may see it: others' jobs are not told of."""

    disk: DiskOut
    kinds: list[KindOut] = Field(description="What lies in the store, the largest first.")
    users: list[HolderOut] = Field(description="For administrators everybody, else you alone.")
    jobs: list[JobUsageOut] = Field(description="The largest of those that you may see.")
    freeable: list[KindOut] = Field(description="What has served its time, by the settings; for administrators.")
    items: list[ItemOut] = Field(description="The first of it.")


def usage(services: Services, user: User) -> UsageOut:
    """The store as a user sees it. Looks through the folders of contact sheets and running steps, and removes nothing."""
    now = room.disk(services)
    doomed = list(janitor.doomed(services)) if user.role == "admin" else []
    with services.database.read() as session:
        return UsageOut(
            disk=DiskOut(
                total_bytes=now.total_bytes,
                free_bytes=now.free_bytes,
                reserve_bytes=now.reserve_bytes,
                is_full=now.is_full,
            ),
            kinds=sorted(_kinds(session, services.store.root), key=lambda one: -one.size_bytes),
            users=_users(session, user, services.settings.max_bytes_per_user or None),
            jobs=_jobs(session, user),
            freeable=summed(doomed),
            items=list(map(item_out, islice(doomed, MOST_ITEMS))),
        )


def summed(items: Iterable[Item]) -> list[KindOut]:
    """Things by their kind."""
    found: dict[str, list[int]] = {}
    for item in items:
        found.setdefault(item.kind, []).append(item.size_bytes)
    return [
        KindOut(kind=kind, title=TITLES[kind], count=len(some), size_bytes=sum(some)) for kind, some in found.items()
    ]


def item_out(item: Item) -> ItemOut:
    """A thing as it reads."""
    return ItemOut(kind=item.kind, name=item.name, title=item.title, size_bytes=item.size_bytes)


def _kinds(session: Session, root: Path) -> Iterator[KindOut]:
    steps = select(StoredStep.kind, func.count(), func.sum(StoredStep.size_bytes)).group_by(StoredStep.kind)
    for kind, count, size_bytes in session.execute(steps):
        yield _kind(kind, count, int(size_bytes))
    for kind, folder in (("work", "work"), ("previews", "blobs"), ("downloads", "downloads")):
        path = root / folder
        count = sum(1 for _ in os.scandir(path)) if path.is_dir() else 0
        if count:
            yield _kind(kind, count, size_of(path))
    sent = select(Upload.kind, func.count(), func.sum(Upload.held_bytes)).group_by(Upload.kind)
    for kind, count, size_bytes in session.execute(sent):
        yield _kind("uploads" if kind == UploadKind.IMAGES else kind, count, int(size_bytes))


def _kind(kind: str, count: int, size_bytes: int) -> KindOut:
    return KindOut(kind=kind, title=TITLES.get(kind, kind), count=count, size_bytes=size_bytes)


def _users(session: Session, user: User, limit_bytes: int | None) -> list[HolderOut]:
    owned = select(Job.owner_id, Step.key).join(Step, Step.job_id == Job.id).where(Job.deleted_at.is_(None))
    once = owned.distinct().subquery()
    weight = select(once.c.owner_id, func.sum(StoredStep.size_bytes)).join(StoredStep, StoredStep.key == once.c.key)
    held: dict[str, int] = dict(session.execute(weight.group_by(once.c.owner_id)).all())
    query = select(User.id, User.name, func.count(Job.id)).join(Job, Job.owner_id == User.id)
    query = query.where(Job.deleted_at.is_(None)).group_by(User.id, User.name)
    if user.role != "admin":
        query = query.where(User.id == user.id)
    found = [
        HolderOut(name=name, jobs=count, size_bytes=int(held.get(id_, 0)), limit_bytes=limit_bytes)
        for id_, name, count in session.execute(query)
    ]
    return sorted(found, key=lambda one: (-one.size_bytes, one.name))


def _jobs(session: Session, user: User) -> list[JobUsageOut]:
    sharers = select(Step.key, func.count().label("jobs")).group_by(Step.key).subquery()
    whole = func.sum(StoredStep.size_bytes)
    own = func.sum(case((sharers.c.jobs == 1, StoredStep.size_bytes), else_=0))
    query = (
        jobs.visible_to(user)
        .join(User, User.id == Job.owner_id)
        .join(Step, Step.job_id == Job.id)
        .join(StoredStep, StoredStep.key == Step.key)
        .join(sharers, sharers.c.key == Step.key)
        .with_only_columns(
            Job.id, Job.name, User.name.label("owner"), Job.state, Job.pinned_by, whole.label("whole"), own.label("own")
        )
        .group_by(Job.id, Job.name, User.name, Job.state, Job.pinned_by)
        .order_by(whole.desc(), Job.id)
        .limit(MOST_JOBS)
    )
    return [
        JobUsageOut(
            id=row.id,
            name=row.name,
            owner=row.owner,
            state=row.state,
            pinned_by=row.pinned_by,
            size_bytes=int(row.whole),
            own_bytes=int(row.own),
        )
        for row in session.execute(query)
    ]
