"""Users and what they log in with. Functions of a session that never commit.

A token is 256 random bits; only its SHA-256 is kept, and it is shown once. Looking up a hash tells nothing of the token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient

from app.errors import Conflict, Forbidden, NotFound
from app.ids import new_id
from app.models import Team, Token, User, utc_now
from app.settings import Settings

PREFIX = "fadrm_"  # so that scanners for secrets find one that was committed somewhere
ROLES = ("admin", "member", "viewer")
SCOPES = {"read": "viewer", "submit": "member", "admin": "admin"}  # what a token may do, as the role that may do it
API_SCOPES = ("read", "submit")
API_DAYS = 90
SESSION = timedelta(days=7)
SESSION_IDLE = timedelta(hours=12)
INVITATION = timedelta(days=7)
TOUCH_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who sends a request, and by what. The user is a copy, whose role is no greater than the token's scopes."""

    user: User
    token: Token


def bootstrap(session: Session) -> User:
    """The first administrator, made when there is nobody yet."""
    admins = select(User).where(User.role == "admin", User.disabled_at.is_(None))
    first = session.scalar(admins.order_by(User.created_at).limit(1))
    return first or add_user(session, "admin", "admin")


def add_user(session: Session, name: str, role: str = "member") -> User:
    """A new user. Raises Conflict when the name is taken."""
    if role not in ROLES:
        raise ValueError(f"{role!r} is no role: choose one of {', '.join(ROLES)}")
    user = User(id=new_id("usr"), name=name, role=role, created_at=utc_now())
    add_named(session, user, "user")
    return user


def add_named(session: Session, row: User | Team, what: str) -> None:
    """Something whose name differs from the others' by more than its case. Raises Conflict when it is taken."""
    table, taken = type(row), Conflict(f"There is a {what} {row.name} already.", hint="Choose another name.")
    if session.scalar(select(table.id).where(func.lower(table.name) == func.lower(row.name))) is not None:
        raise taken
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # somebody else was quicker by a moment
        raise taken from error


def new_token(
    session: Session, user: User, kind: str, name: str, lifetime: timedelta | None, **more: Any
) -> tuple[Token, str]:
    """A token's row, and the token itself, which nobody can ever read again. more: further columns of the row."""
    plain = PREFIX + secrets.token_urlsafe(32)
    now = utc_now()
    token = Token(
        id=new_id("tok"),
        user_id=user.id,
        kind=kind,
        name=name,
        sha256=digest_of(plain),
        created_at=now,
        expires_at=now + lifetime if lifetime else None,
        **more,
    )
    session.add(token)
    session.flush()
    return token, plain


def api_token(
    session: Session, user: User, name: str, days: int | None = API_DAYS, scopes: Sequence[str] | None = None
) -> tuple[Token, str]:
    """For programs: sent as `Authorization: Bearer ...`.

    days: None for one that lasts until it is revoked. scopes: None for all that its user may do.
    """
    kept = sorted(set(scopes), key=list(SCOPES).index) if scopes is not None else None
    return new_token(session, user, "api", name, timedelta(days=days) if days else None, scopes=kept)


def login_link(session: Session, user: User) -> str:
    """A token for /login?token=..., good once, for half an hour."""
    return new_token(session, user, "login", "one-time link", timedelta(minutes=30))[1]


def digest_of(plain: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(plain.encode()).hexdigest()


def identify(session: Session, plain: str, *kinds: str) -> Identity | None:
    """Whose token this is; None when it is nobody's, expired, revoked, not of these kinds, or its user is disabled."""
    digest = digest_of(plain)
    row = session.execute(
        select(Token, User)
        .join(User, User.id == Token.user_id)
        .where(Token.sha256 == digest, Token.kind.in_(kinds), User.disabled_at.is_(None))
    ).one_or_none()
    if row is None or not hmac.compare_digest(row.Token.sha256, digest) or not is_good(row.Token, utc_now()):
        return None
    return Identity(user=_within_scopes(row.User, row.Token.scopes), token=row.Token)


def _within_scopes(user: User, scopes: Sequence[str] | None) -> User:
    """The user, with a role that is no greater than the scopes. A copy that no session knows: nothing is written."""
    make_transient(user)
    if scopes is not None:
        roles = {user.role, max((SCOPES[scope] for scope in scopes), key=_rank, default="viewer")}
        user.role = min(roles, key=_rank)
    return user


def reaches(role: str, other: str) -> bool:
    """Whether one role may do all that another may."""
    return _rank(role) >= _rank(other)


def _rank(role: str) -> int:
    return -ROLES.index(role)


def is_good(token: Token, now: datetime) -> bool:
    """Whether a token can still be used."""
    if token.revoked_at is not None or (token.expires_at is not None and token.expires_at <= now):
        return False
    return token.kind != "session" or now - (token.last_used_at or token.created_at) < SESSION_IDLE


def still_good(session: Session, identity: Identity) -> bool:
    """Whether who came in a while ago would come in now, as the same: long streams ask."""
    token, user = session.get(Token, identity.token.id), session.get(User, identity.user.id)
    if token is None or user is None or user.disabled_at is not None or not is_good(token, utc_now()):
        return False
    return _within_scopes(user, token.scopes).role == identity.user.role


def is_due(token: Token) -> bool:
    """Whether its last use should be written again: not at each request."""
    return token.last_used_at is None or utc_now() - token.last_used_at > TOUCH_EVERY


def touch(session: Session, token_id: str) -> None:
    """Note that a token was used."""
    session.execute(update(Token).where(Token.id == token_id).values(last_used_at=utc_now()))


def log_in(session: Session, plain: str, client: str = "") -> tuple[Identity, str] | None:
    """A session for the bearer of a one-time link (which is used up) or of an API token; None when it is neither.

    Returns who it is, and by what they came in, with the session's cookie.
    """
    identity = identify(session, plain, "login", "api")
    if identity is None or (identity.token.kind == "login" and not use_up(session, identity.token)):
        return None
    lifetime = SESSION
    if identity.token.kind == "api" and identity.token.expires_at is not None:
        lifetime = min(lifetime, identity.token.expires_at - utc_now())
    name, scopes = f"by {identity.token.id}", identity.token.scopes
    return identity, begin_session(session, identity.user, client, name=name, lifetime=lifetime, scopes=scopes)


def begin_session(
    session: Session,
    user: User,
    client: str,
    *,
    name: str = "by password",
    lifetime: timedelta = SESSION,
    scopes: Sequence[str] | None = None,
) -> str:
    """A browser is let in from now on: what its cookie holds. client: what browser, and from where."""
    return new_token(session, user, "session", name, lifetime, client=client[:200], scopes=scopes)[1]


def use_up(session: Session, token: Token) -> bool:
    """End a link that is good once; whether it was. One statement, so that of two who click at once one gets in."""
    used = update(Token).where(Token.id == token.id, Token.revoked_at.is_(None)).values(revoked_at=utc_now())
    return session.execute(used.returning(Token.id)).one_or_none() is not None


def tokens_of(session: Session, user: User) -> list[Token]:
    """The API tokens of a user that were not revoked, newest first; those that expired stay in the list."""
    query = select(Token).where(Token.user_id == user.id, Token.kind == "api", Token.revoked_at.is_(None))
    return list(session.scalars(query.order_by(Token.id.desc())))


def sessions_of(session: Session, user: User) -> list[Token]:
    """The sessions of a user that can still be used, newest first."""
    query = select(Token).where(Token.user_id == user.id, Token.kind == "session", Token.revoked_at.is_(None))
    now = utc_now()
    return [token for token in session.scalars(query.order_by(Token.id.desc())) if is_good(token, now)]


def end_all(session: Session, user: User, *kinds: str, but: str = "") -> None:
    """End every token of a user, or those of some kinds, at once. but: id of one that stays."""
    mine = update(Token).where(Token.user_id == user.id, Token.id != but, Token.revoked_at.is_(None))
    mine = mine.where(Token.kind.in_(kinds)) if kinds else mine
    session.execute(mine.values(revoked_at=utc_now()), execution_options={"synchronize_session": False})


def revoke(session: Session, user: User, token_id: str) -> None:
    """End a token, and the sessions that were begun with it, at once. Raises NotFound, also for a foreign one."""
    token = session.get(Token, token_id)
    kinds = ("api", "session")
    if token is None or token.user_id != user.id or token.revoked_at is not None or token.kind not in kinds:
        raise NotFound(f"You have no token {token_id}.", hint="Look at the list of your tokens for its id.")
    begun_with_it = (Token.user_id == user.id) & (Token.kind == "session") & (Token.name == f"by {token_id}")
    session.execute(
        update(Token)
        .where((Token.id == token_id) | begun_with_it, Token.revoked_at.is_(None))
        .values(revoked_at=utc_now()),
        execution_options={"synchronize_session": False},
    )


def end(session: Session, token_id: str) -> None:
    """End a session: its user logs out. An API token is not ended so, but by `revoke`."""
    session.execute(update(Token).where(Token.id == token_id, Token.kind == "session").values(revoked_at=utc_now()))


def may_write(user: User) -> User:
    """Raises Forbidden for who may only look, or comes with a token that may only look."""
    if user.role == "viewer":
        raise Forbidden(
            "Your role is viewer, or your token's only scope is read: you may look and not change.",
            hint="Ask an administrator for the role member; make a token with the scope submit.",
        )
    return user


def may_administer(user: User) -> User:
    """Raises Forbidden for who is no administrator, or comes with a token that is not for administration."""
    if user.role != "admin":
        raise Forbidden(
            "Only an administrator may do this, and a token only with the scope admin.", hint="Ask one of them."
        )
    return user


def may_manage(identity: Identity) -> User:
    """Raises Forbidden for a token with scopes: it makes no other token, which might outlive it, and no password."""
    if identity.token.scopes is not None:
        raise Forbidden(
            "A token with scopes changes no account, neither its user's nor another.",
            hint="Log in with a browser; on the server's own machine, `fadrm token create NAME` makes tokens.",
        )
    return identity.user


def csrf_token(secret: bytes, session_sha256: str) -> str:
    """What a page of a session sends along with everything that changes something."""
    return hmac.new(secret, b"csrf:" + session_sha256.encode(), hashlib.sha256).hexdigest()


def load_secret(settings: Settings) -> bytes:
    """The secret that signs CSRF tokens: the setting's, else one of this server's own, made once and readable by nobody else."""
    given = settings.secret.get_secret_value()
    if given:
        return given.encode()
    path = settings.home / "secret"
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        _make_secret(path)
    return path.read_bytes()


def _make_secret(path: Path) -> None:
    """Whole or not at all, and the first of several processes wins."""
    temporary = path.with_name(f".secret.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_hex(32).encode())
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
