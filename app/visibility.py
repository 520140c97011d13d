"""Who sees a job, a sweep or an upload, and who may change it: one rule, for lists, pages, downloads and streams alike.

What is not seen is not there: it is answered like what never was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Literal

from sqlalchemy import ColumnElement, Select, or_, select, true
from sqlalchemy.orm import Session, aliased

from app.db import Database
from app.errors import Forbidden, Unprocessable
from app.models import Job, Membership, Sweep, Upload, UploadHolder, User, Visibility

Owned = Job | Sweep | Upload
Chosen = Literal["private", "team", "all"]
KINDS: dict[type, str] = {Job: "job", Sweep: "sweep", Upload: "upload"}


def visible_to(user: User, table: type[Owned]) -> ColumnElement[bool]:
    """What of a table a user may see: what is shown to them, and of uploads those whose bytes they sent too."""
    seen = shown_to(user, table)
    if table is Upload:
        return seen | Upload.id.in_(select(UploadHolder.upload_id).where(UploadHolder.user_id == user.id))
    return seen


def shown_to(user: User, table: type[Owned]) -> ColumnElement[bool]:
    """Their own, their teams', what is everybody's; an administrator is shown all."""
    if user.role == "admin":
        return true()
    team = (table.visibility == Visibility.TEAM) & table.owner_id.in_(teammates(user))
    return or_(table.owner_id == user.id, table.visibility == Visibility.ALL, team)


def teammates(user: User) -> Select[str]:
    """Ids of everybody who is in a team with a user."""
    own = aliased(Membership)
    return select(Membership.user_id).join(own, own.team_id == Membership.team_id).where(own.user_id == user.id)


def read_teams(database: Database) -> dict[str, set[str]]:
    """User -> everybody who is in a team with them: for streams, which decide of each change whom to tell it."""
    teams: dict[str, set[str]] = defaultdict(set)
    with database.read() as session:
        for team_id, user_id in session.execute(select(Membership.team_id, Membership.user_id)):
            teams[team_id].add(user_id)
    mates: dict[str, set[str]] = defaultdict(set)
    for members in teams.values():
        for user_id in members:
            mates[user_id] |= members
    return mates


def sees(user: User, mates: Collection[str], owner_id: str, visibility: str) -> bool:
    """`visible_to` of one job, without a look at the database."""
    if user.role == "admin" or owner_id == user.id or visibility == Visibility.ALL:
        return True
    return visibility == Visibility.TEAM and owner_id in mates


def may_change(user: User, thing: Owned) -> None:
    """Raises Forbidden for who sees it, but does not own it."""
    if user.role != "admin" and thing.owner_id != user.id:
        raise Forbidden(
            f"This {KINDS[type(thing)]} is another user's.", hint="Ask its owner or an administrator to change it."
        )


def chosen(session: Session, owner: User, wanted: str | None, default: str) -> Visibility:
    """How visible something new is. By default `team` is only for those who have one: else a later team would see it."""
    if wanted is not None:
        return Visibility(wanted)
    if default == Visibility.TEAM and not session.scalar(
        select(Membership.team_id).where(Membership.user_id == owner.id).limit(1)
    ):
        return Visibility.PRIVATE
    return Visibility(default)


def refuse_wider(known: Job | Sweep, wanted: str | None) -> None:
    """Raises Unprocessable where more people see what an Idempotency-Key made before than should now; None asks for nothing."""
    order = list(Visibility)
    if wanted is not None and order.index(Visibility(known.visibility)) > order.index(Visibility(wanted)):
        raise Unprocessable(
            f"This Idempotency-Key was used before, for {known.id}, whose visibility is {known.visibility} "
            f"and not {wanted}.",
            hint=f"Send a new Idempotency-Key, or change who sees that {KINDS[type(known)]}.",
        )


def of_a_copy(user: User, known: Owned) -> Visibility | None:
    """What `chosen` is to be told of what is made from another: a copy of one's own shows nobody what that hides."""
    return known.visibility if known.owner_id == user.id else None
