"""Who you are, your password, your tokens and your sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app import audit, auth, passwords, people
from app.deps import IdentityDep, ManagerDep, ServicesDep, UserDep
from app.errors import Forbidden, NotFound
from app.models import Token, User
from app.planning import Name
from app.services import Services
from engine.errors import ErrorReport

router = APIRouter(tags=["account"])
Scope = Literal["read", "submit", "admin"]
Password = Annotated[str, Field(max_length=400)]


class MeOut(BaseModel):
    """You, and what you are logged in with."""

    id: str
    name: str
    role: str = Field(description="What you may do with what you are logged in with: a token's scopes may lower it.")
    teams: list[str] = Field([], description="Who is in one of them sees what you show to your team.")
    by: str = Field(description="session (a browser) or api (a token).")
    scopes: list[str] | None = Field(None, description="Of the token; null: all that you may do.")
    expires_at: datetime | None


class TokenIn(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What it is for.")
    days: Annotated[int, Field(ge=1, le=3650, strict=True)] | None = Field(
        auth.API_DAYS, description="Null: until it is revoked."
    )
    scopes: list[Scope] = Field(
        ["read", "submit"],
        min_length=1,
        max_length=3,
        description="What it may do: read; submit, which is to change what is yours; admin. Never more than you may.",
    )


class TokenOut(BaseModel):
    """A token as it is listed: never itself."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    scopes: list[str] | None = Field(None, description="Null: all that its user may do.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewTokenOut(TokenOut):
    """A token as it is shown once."""

    token: str


class SessionOut(BaseModel):
    """A browser that is logged in."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    client: str | None = Field(description="What browser, and from which address.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    current: bool = Field(False, description="The one that asks.")


class PasswordIn(BaseModel):
    """Another password."""

    model_config = ConfigDict(extra="forbid")

    current: Password | None = Field(None, description="The one until now; null where there is none yet.")
    new: Password = Field(description=f"At least {passwords.LEAST} characters.")


@router.get("/me", summary="Who you are")
def get_me(identity: IdentityDep, services: ServicesDep) -> MeOut:
    user, token = identity.user, identity.token
    with services.database.read() as session:
        teams = people.teams_of(session, user)
    return MeOut(
        id=user.id,
        name=user.name,
        role=user.role,
        teams=teams,
        by=token.kind,
        scopes=token.scopes,
        expires_at=token.expires_at,
    )


@router.post("/me/password", status_code=204, summary="Another password; your other sessions end")
def change_password(wanted: PasswordIn, identity: IdentityDep, services: ServicesDep, _user: ManagerDep) -> Response:
    replace_password(services, identity, wanted.current or "", wanted.new)
    return Response(status_code=204)


def replace_password(services: Services, identity: auth.Identity, current: str, new: str) -> None:
    """For the API and the page alike. Raises Forbidden for a wrong password, Unprocessable for a bad new one."""
    with services.database.read() as session:
        kept = session.get_one(User, identity.user.id).password
    if kept is not None and not passwords.matches(current, kept):
        report = ErrorReport(code="wrong_password", message="The current password is another.", pointer="/current")
        raise Forbidden(report.message, hint="An administrator can give you a link for a new one.", errors=[report])
    hashed = passwords.hashed(passwords.check(new, identity.user.name, "/new"))
    with services.database.write() as session:
        people.change_password(session, identity, hashed)


@router.get("/tokens", summary="Your API tokens")
def list_tokens(services: ServicesDep, user: UserDep) -> list[TokenOut]:
    with services.database.read() as session:
        return [TokenOut.model_validate(token) for token in auth.tokens_of(session, user)]


@router.post("/tokens", status_code=201, summary="Make an API token: it is shown this once")
def create_token(wanted: TokenIn, services: ServicesDep, user: ManagerDep) -> NewTokenOut:
    token, plain = new_token(services, user, wanted)
    return NewTokenOut(**TokenOut.model_validate(token).model_dump(), token=plain)


def new_token(services: Services, user: User, wanted: TokenIn) -> tuple[Token, str]:
    """For the API and the page alike."""
    with services.database.write() as session:
        token, plain = auth.api_token(session, user, wanted.name, wanted.days, wanted.scopes)
        audit.note(session, user, "token.created", token.id, name=token.name, scopes=token.scopes)
    return token, plain


@router.delete("/tokens/{token_id}", status_code=204, summary="Revoke one of your tokens, at once")
def revoke_token(token_id: str, services: ServicesDep, identity: IdentityDep) -> Response:
    revoke(services, _may_end(identity, token_id), token_id, "api")
    return Response(status_code=204)


@router.get("/sessions", summary="Browsers in which you are logged in")
def list_sessions(services: ServicesDep, identity: IdentityDep) -> list[SessionOut]:
    with services.database.read() as session:
        found = [SessionOut.model_validate(token) for token in auth.sessions_of(session, identity.user)]
    return [one.model_copy(update={"current": one.id == identity.token.id}) for one in found]


@router.delete("/sessions/{session_id}", status_code=204, summary="Log one of your browsers out, at once")
def end_session(session_id: str, services: ServicesDep, identity: IdentityDep) -> Response:
    revoke(services, _may_end(identity, session_id), session_id, "session")
    return Response(status_code=204)


def _may_end(identity: auth.Identity, token_id: str) -> User:
    """Raises Forbidden for a token with scopes, which may end only itself."""
    return identity.user if token_id == identity.token.id else auth.may_manage(identity)


def revoke(services: Services, user: User, token_id: str, kind: str) -> None:
    """End a token or a session. Raises NotFound, also for a foreign one."""
    with services.database.write() as session:
        token = session.get(Token, token_id)
        if token is None or token.kind != kind:
            raise NotFound(
                f"You have no {'token' if kind == 'api' else kind} {token_id[:80]}.",
                hint="Look at the list in your settings for its id.",
            )
        auth.revoke(session, user, token_id)
        audit.note(session, user, "token.revoked" if kind == "api" else "session.ended", token_id, name=token.name)
