"""The audit log: who logged in, who made or ended an account, a token or a team, who touched what is another's.

Written in the transaction of what it tells of, so that neither is there without the other. Nothing changes or removes a row:
there is no function for it, and the database refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.ids import new_id
from app.models import AuditEvent, User, utc_now

MACHINE = "this machine"  # who runs commands on the server's own files


def note(session: Session, by: User | str | None, action: str, target: str, /, **data: Any) -> None:
    """Write down that somebody did something. by: a name where it is no user that is known; None: the machine's owner."""
    name = by.name if isinstance(by, User) else by if by is not None else MACHINE
    session.add(
        AuditEvent(
            id=new_id("aud"),
            actor_id=by.id if isinstance(by, User) else None,
            actor=name[:80],
            action=action,
            target=target[:80],
            data=data,
            at=utc_now(),
        )
    )


def events(
    session: Session, *, action: str = "", actor: str = "", after: str = "", limit: int = 50
) -> Sequence[AuditEvent]:
    """What happened, newest first. action: itself, or what comes before its dot. actor: an id or a name. after: an id."""
    query = select(AuditEvent).order_by(AuditEvent.id.desc()).limit(limit)
    if action:
        query = query.where((AuditEvent.action == action) | AuditEvent.action.startswith(f"{action}.", autoescape=True))
    if actor:
        query = query.where((AuditEvent.actor_id == actor) | (AuditEvent.actor == actor))
    if after:
        query = query.where(AuditEvent.id < after)
    return session.scalars(query).all()
