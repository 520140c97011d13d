"""Whether there is room for more: the reserve of the store's disk, and what one user's jobs may hold."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pydantic import BaseModel, Field
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.errors import NoRoom, TooMany
from app.models import TERMINAL_JOB_STATES, Job, Step, StoredStep, User
from app.services import Services
from app.storage import stored
from engine.plan import Step as PlannedStep


class RoomOut(BaseModel):
    """What a plan would take of the store, beside what there is."""

    needs_bytes: int = Field(description="Of the steps that are not in the store, by estimate.")
    held_bytes: int = Field(description="What your jobs hold already, and those under way will.")
    limit_bytes: int | None = Field(description="What they may hold; null: there is no limit.")
    free_bytes: int = Field(description="On the store's disk, without its reserve.")
    reserve_bytes: int = Field(description="Kept free: nothing begins that would have to use it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The store's disk."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def is_full(self) -> bool:
        """Whether nothing new should begin."""
        return self.free_bytes < self.reserve_bytes

    def __str__(self) -> str:
        return f"the store’s disk has {gb(self.free_bytes)} free, and {gb(self.reserve_bytes)} are kept in reserve"


def disk(services: Services) -> Disk:
    """The store's disk as it is now; before there is a store, that of the folder which will hold it."""
    root, settings = services.store.root.absolute(), services.settings
    found = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists()))
    reserve = max(settings.reserve_bytes, int(settings.reserve_share * found.total))
    return Disk(total_bytes=found.total, free_bytes=found.free, reserve_bytes=reserve)


def refusal(services: Services) -> str | None:
    """Why no step should begin here, in words; None when one may."""
    found = disk(services)
    return str(found) if found.is_full else services.store.away()


def room_for(session: Session, services: Services, owner: User, steps: Iterable[PlannedStep]) -> RoomOut:
    """What these steps would take for a user. A step that the store has takes nothing new, and is held from then on."""
    wanted = {step.key: step.size_bytes for step in steps}
    own = set(session.scalars(_keys(owner.id).where(Step.key.in_(wanted))))
    others = wanted.keys() - own
    found = select(StoredStep.key, StoredStep.size_bytes).where(StoredStep.key.in_(others))
    there: dict[str, int] = dict(session.execute(found).all())
    new = sum(wanted[key] for key in others - there.keys() if not services.store.is_whole(key))
    now = disk(services)
    return RoomOut(
        needs_bytes=new,
        held_bytes=stored.held_bytes(session, owner.id) + _coming_bytes(session, owner.id) + sum(there.values()),
        limit_bytes=services.settings.max_bytes_per_user or None,
        free_bytes=max(now.free_bytes - now.reserve_bytes, 0),
        reserve_bytes=now.reserve_bytes,
    )


def lack(room: RoomOut) -> list[str]:
    """What there is too little of, in sentences."""
    found = []
    if room.limit_bytes is not None and room.held_bytes + room.needs_bytes > room.limit_bytes:
        found.append(
            f"This leaves about {gb(room.needs_bytes)}, your jobs hold {gb(room.held_bytes)}, "
            f"and they may hold {gb(room.limit_bytes)}."
        )
    if room.needs_bytes > room.free_bytes:
        found.append(f"This leaves about {gb(room.needs_bytes)}, and the store has {gb(room.free_bytes)} free.")
    return found


def check(session: Session, services: Services, owner: User, steps: Collection[PlannedStep]) -> None:
    """Raises NoRoom when the disk is at its reserve, TooMany when the user's jobs would hold too much.

    What the store has already needs no room.
    """
    now = disk(services)
    if now.is_full and not all(services.store.is_whole(step.key) for step in steps):
        hint = "Have an administrator free space in the store: the page Storage says what can go."
        raise NoRoom(f"No job is taken now: {now}.", hint=hint)
    if not services.settings.max_bytes_per_user:
        return
    room = room_for(session, services, owner, steps)
    if room.limit_bytes is not None and room.held_bytes + room.needs_bytes > room.limit_bytes:
        raise TooMany(lack(room)[0], hint="Delete jobs that you need no longer, or ask an administrator for more.")


def gb(size_bytes: float) -> str:
    """`1.2 GB`, `3.4 MB`."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e8 else f"{size_bytes / 1e6:.1f} MB"


def _keys(owner_id: str) -> Select[str]:
    return select(Step.key).join(Job, Job.id == Step.job_id).where(Job.owner_id == owner_id, Job.deleted_at.is_(None))


def _coming_bytes(session: Session, owner_id: str) -> int:
    """What the unfinished jobs of a user will still add, by estimate; a step that several have counts once."""
    own = _keys(owner_id).where(Job.state.not_in(TERMINAL_JOB_STATES), Step.key.not_in(select(StoredStep.key)))
    once = own.add_columns(func.max(Step.size_bytes).label("size_bytes")).group_by(Step.key).subquery()
    return int(session.scalar(select(func.sum(once.c.size_bytes))) or 0)
