"""Accounts and teams: made, invited, changed, disabled. Functions of a session that never commit; each is written down.

by: the administrator who asks; None for whoever runs commands on the server's own machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app import audit, auth, passwords
from app.errors import Conflict, NotFound, Unprocessable
from app.ids import new_id
from app.models import Membership, Team, Token, User, utc_now
from engine.errors import ErrorReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user, the names of their teams, and whether a link to set a password was given to them and waits."""

    user: User
    teams: list[str]
    is_invited: bool


def everybody(session: Session) -> list[Person]:
    """All accounts by name, disabled ones last."""
    users = session.scalars(select(User).order_by(User.disabled_at.is_not(None), User.name)).all()
    return _persons(session, users)


def person(session: Session, user_id: str) -> Person:
    """One account. Raises NotFound."""
    return _persons(session, [_user(session, user_id)])[0]


def named(session: Session, name: str) -> User:
    """The account of that name. Raises NotFound."""
    found = session.scalar(select(User).where(User.name == name))
    if found is None:
        raise NotFound(f"There is no user {name}.", hint="`fadrm admin user list` names them.")
    return found


def add(session: Session, by: User | None, name: str, role: str = "member", teams: Iterable[str] = ()) -> User:
    """A new account, without a password. Raises Conflict when the name is taken, NotFound for a team."""
    user = auth.add_user(session, name, role)
    _join(session, user, teams)
    audit.note(session, by, "user.created", user.name, role=role, teams=sorted(teams))
    return user


def invite(session: Session, by: User | None, user: User, *, reset: bool = False) -> str:
    """The token of a link with which a person sets a password, once. Earlier links are good no longer.

    reset: the old password too, and all that was begun with it. Raises Conflict for a disabled account.
    """
    if user.disabled_at is not None:
        raise Conflict(f"{user.name} is disabled.", hint="Enable the account first.")
    auth.end_all(session, user, "invite")
    if reset:
        user.password = None
        auth.end_all(session, user)
    audit.note(session, by, "user.reset" if reset else "user.invited", user.name)
    return auth.new_token(session, user, "invite", "invitation", auth.INVITATION)[1]


def invited(session: Session, plain: str) -> User | None:
    """Whose link it is; None when it is nobody's, or good no longer."""
    identity = auth.identify(session, plain, "invite")
    return identity.user if identity else None


def accept(session: Session, plain: str, kept: str, client: str) -> tuple[User, str] | None:
    """Set the first or a new password by a link, which is used up. kept: its hash. Returns a session's cookie."""
    identity = auth.identify(session, plain, "invite")
    if identity is None or not auth.use_up(session, identity.token):
        return None
    _set_password(session, session.get_one(User, identity.user.id), kept)
    return identity.user, auth.begin_session(session, identity.user, client)


def change_password(session: Session, identity: auth.Identity, kept: str) -> None:
    """Another password; every other session of the user ends. kept: its hash."""
    _set_password(session, session.get_one(User, identity.user.id), kept, but=identity.token.id)


def _set_password(session: Session, user: User, kept: str, but: str = "") -> None:
    user.password = kept
    auth.end_all(session, user, "session", "login", "invite", but=but)
    audit.note(session, user, "password.changed", user.name)


def check_password(session: Session, name: str) -> tuple[str, str | None]:
    """The id and the kept password of who may log in by that name; nobody's for one who may not."""
    found = session.scalar(select(User).where(User.name == name, User.disabled_at.is_(None)))
    return (found.id, found.password) if found else ("", None)


def is_theirs(session: Session, name: str, password: str) -> bool:
    """Whether a password lets that person in. Takes a moment: not within a transaction that writes."""
    return passwords.matches(password, check_password(session, name)[1])


def change(
    session: Session,
    by: User | None,
    user: User,
    *,
    role: str | None = None,
    is_disabled: bool | None = None,
    teams: Sequence[str] | None = None,
) -> None:
    """Another role or other teams, or disable or enable an account. Raises Conflict for the last administrator.

    Who is disabled is out at once: every session, token and link ends, and comes back with none of them.
    """
    if user.role == "admin" and (is_disabled or role not in {None, "admin"}):
        _not_the_last(session, user)
    session.refresh(user, with_for_update=True)  # of two who change one account, the second waits
    if role is not None and role != user.role:
        audit.note(session, by, "user.role", user.name, was=user.role, now=role)
        user.role = role
    if is_disabled is not None and is_disabled != (user.disabled_at is not None):
        user.disabled_at = utc_now() if is_disabled else None
        auth.end_all(session, user)
        audit.note(session, by, "user.disabled" if is_disabled else "user.enabled", user.name)
    if teams is not None:
        session.execute(delete(Membership).where(Membership.user_id == user.id))
        _join(session, user, teams)
        audit.note(session, by, "user.teams", user.name, now=sorted(teams))
    session.flush()


def _not_the_last(session: Session, user: User) -> None:
    """Of two who would remove each other one has to wait here, and is refused then."""
    admins = select(User.id).where(User.role == "admin", User.disabled_at.is_(None)).order_by(User.id)
    if set(session.scalars(admins.with_for_update())) <= {user.id}:
        raise Conflict(f"{user.name} is the last administrator.", hint="Make somebody else one first.")


def teams_of(session: Session, user: User) -> list[str]:
    """Names of the teams that a user is in."""
    query = select(Team.name).join(Membership, Membership.team_id == Team.id).where(Membership.user_id == user.id)
    return list(session.scalars(query.order_by(Team.name)))


def teams(session: Session) -> dict[str, list[str]]:
    """Team -> names of who is in it."""
    query = select(Team.name, User.name).outerjoin(Membership, Membership.team_id == Team.id)
    query = query.outerjoin(User, User.id == Membership.user_id).order_by(Team.name, User.name)
    found: dict[str, list[str]] = {}
    for team, member in session.execute(query):
        found.setdefault(team, []).extend([member] if member else [])
    return found


def add_team(session: Session, by: User | None, name: str) -> None:
    """A team in which nobody is yet. Raises Conflict when the name is taken."""
    auth.add_named(session, Team(id=new_id("team"), name=name), "team")
    audit.note(session, by, "team.created", name)


def remove_team(session: Session, by: User | None, name: str) -> None:
    """What its people showed to it, they show to their other teams. Raises NotFound."""
    team = session.scalar(select(Team).where(Team.name == name).with_for_update())
    if team is None:
        raise NotFound(f"There is no team {name[:80]}.", hint="Look at the list of teams for its name.")
    session.execute(delete(Membership).where(Membership.team_id == team.id))
    session.delete(team)
    audit.note(session, by, "team.removed", name)


def _join(session: Session, user: User, names: Iterable[str]) -> None:
    """The teams' rows are held, so that none of them is removed meanwhile."""
    ids = {_team(session, name).id for name in sorted(names)}
    session.add_all(Membership(team_id=team_id, user_id=user.id) for team_id in ids)
    session.flush()


def _team(session: Session, name: str) -> Team:
    found = session.scalar(select(Team).where(Team.name == name).with_for_update(read=True, key_share=True))
    if found is None:
        known = ", ".join(session.scalars(select(Team.name).order_by(Team.name))) or "none"
        message, hint = f"There is no team {name[:80]}.", f"Teams are: {known}."
        raise Unprocessable(
            message, hint=hint, errors=[ErrorReport(code="unknown_team", message=message, hint=hint, pointer="/teams")]
        )
    return found


def _user(session: Session, user_id: str) -> User:
    found = session.get(User, user_id)
    if found is None:
        raise NotFound(f"There is no user {user_id[:80]}.", hint="GET /api/v1/users lists them.")
    return found


def _persons(session: Session, users: Sequence[User]) -> list[Person]:
    ids = [user.id for user in users]
    in_teams: dict[str, list[str]] = defaultdict(list)
    query = select(Membership.user_id, Team.name).join(Team, Team.id == Membership.team_id)
    for user_id, name in session.execute(query.where(Membership.user_id.in_(ids)).order_by(Team.name)):
        in_teams[user_id].append(name)
    links = select(Token).where(Token.user_id.in_(ids), Token.kind == "invite", Token.revoked_at.is_(None))
    now = utc_now()
    waiting = {token.user_id for token in session.scalars(links) if auth.is_good(token, now)}
    return [Person(user=user, teams=in_teams[user.id], is_invited=user.id in waiting) for user in users]
