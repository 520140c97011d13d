"""Accounts, teams and the audit log: for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from app import audit, auth, people, views
from app.deps import AdminDep, ManagerDep, ServicesDep
from app.models import User, utc_now
from app.planning import Name
from app.services import Services

router = APIRouter(tags=["people"])
Role = Literal["admin", "member", "viewer"]
Teams = Annotated[list[Name], Field(max_length=100, description="Names of teams that there are.")]


class UserIn(BaseModel):
    """An account to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="To log in with.")
    role: Role = "member"
    teams: Teams = []


class UserChangeIn(BaseModel):
    """What of an account is changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    role: Role | None = None
    disabled: bool | None = Field(None, description="True: every session and token of theirs ends at once.")
    teams: Teams | None = None


class UserOut(BaseModel):
    """An account."""

    id: str
    name: str
    role: str
    teams: list[str]
    has_password: bool
    invited: bool = Field(description="A link to set a password was given to them, and is still good.")
    disabled_at: datetime | None
    created_at: datetime


class InvitationIn(BaseModel):
    """What the link is for."""

    model_config = ConfigDict(extra="forbid")

    reset: bool = Field(False, description="The old password ends now, and with it every session and token.")


class InvitationOut(BaseModel):
    """A link with which a person sets a password, once. Shown this once."""

    user_id: str
    url: str
    expires_at: datetime


class NewUserOut(UserOut):
    """A new account, with the link for its owner."""

    invitation: InvitationOut


class TeamIn(BaseModel):
    """A team to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name


class TeamOut(BaseModel):
    """People who see what the others of them show to their team."""

    name: str
    members: list[str]


class AuditEventOut(BaseModel):
    """Something that was done."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    at: datetime
    actor_id: str | None = Field(description="Null where it is no user that is known, or the server's own machine.")
    actor: str = Field(description="The name at that time.")
    action: str
    target: str
    data: dict[str, Any]


class AuditPage(BaseModel):
    """Some of it, newest first."""

    data: list[AuditEventOut]
    has_more: bool
    next_cursor: str | None


@router.get("/users", summary="All accounts")
def list_users(services: ServicesDep, _admin: AdminDep) -> list[UserOut]:
    with services.database.read() as session:
        return [user_out(person) for person in people.everybody(session)]


@router.post("/users", status_code=201, summary="Make an account: answers with the link for its owner")
def create_user(
    wanted: UserIn, request: Request, services: ServicesDep, admin: AdminDep, _user: ManagerDep
) -> NewUserOut:
    with services.database.write() as session:
        user = people.add(session, admin, wanted.name, wanted.role, wanted.teams)
        plain = people.invite(session, admin, user)
        made = user_out(people.person(session, user.id))
    return NewUserOut(**made.model_dump(), invitation=invitation_out(request, services, user, plain))


@router.get("/users/{user_id}", summary="One account")
def get_user(user_id: str, services: ServicesDep, _admin: AdminDep) -> UserOut:
    with services.database.read() as session:
        return user_out(people.person(session, user_id))


@router.patch("/users/{user_id}", summary="Another role or other teams, or disable or enable an account")
def change_user(
    wanted: UserChangeIn, user_id: str, services: ServicesDep, admin: AdminDep, _user: ManagerDep
) -> UserOut:
    with services.database.write() as session:
        user = people.person(session, user_id).user
        people.change(session, admin, user, role=wanted.role, is_disabled=wanted.disabled, teams=wanted.teams)
        return user_out(people.person(session, user_id))


@router.post("/users/{user_id}/invitation", status_code=201, summary="A link with which a person sets a password, once")
def invite_user(
    wanted: InvitationIn, user_id: str, request: Request, services: ServicesDep, admin: AdminDep, _user: ManagerDep
) -> InvitationOut:
    with services.database.write() as session:
        user = people.person(session, user_id).user
        plain = people.invite(session, admin, user, reset=wanted.reset)
    return invitation_out(request, services, user, plain)


@router.get("/teams", summary="All teams, and who is in them")
def list_teams(services: ServicesDep, _admin: AdminDep) -> list[TeamOut]:
    with services.database.read() as session:
        return [TeamOut(name=name, members=members) for name, members in people.teams(session).items()]


@router.post("/teams", status_code=201, summary="Make a team")
def create_team(wanted: TeamIn, services: ServicesDep, admin: AdminDep) -> TeamOut:
    with services.database.write() as session:
        people.add_team(session, admin, wanted.name)
    return TeamOut(name=wanted.name, members=[])


@router.delete("/teams/{team}", status_code=204, summary="Remove a team; its people and their work stay")
def remove_team(team: str, services: ServicesDep, admin: AdminDep) -> Response:
    with services.database.write() as session:
        people.remove_team(session, admin, team)
    return Response(status_code=204)


@router.get("/audit-events", summary="Who did what to accounts, tokens, teams and the work of others, newest first")
def list_audit_events(
    services: ServicesDep,
    _admin: AdminDep,
    action: Annotated[str, Query(max_length=40, description="`login.failed`, or `login` for all that begin so.")] = "",
    actor: Annotated[str, Query(max_length=80, description="An id or a name.")] = "",
    after: Annotated[views.AuditCursor, Query(description="`next_cursor` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> AuditPage:
    return audit_page(services, action=action, actor=actor, after=after, limit=limit)


def audit_page(services: Services, *, limit: int, **asked: str) -> AuditPage:
    """For the API and the page alike."""
    with services.database.read() as session:
        found = [AuditEventOut.model_validate(one) for one in audit.events(session, limit=limit + 1, **asked)]
    has_more = len(found) > limit
    return AuditPage(data=found[:limit], has_more=has_more, next_cursor=found[limit - 1].id if has_more else None)


def invitation_out(request: Request, services: Services, user: User, plain: str) -> InvitationOut:
    """The link as a person can open it."""
    base = services.settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")
    url = f"{base}/invitation?token={plain}"
    return InvitationOut(user_id=user.id, url=url, expires_at=utc_now() + auth.INVITATION)


def user_out(person: people.Person) -> UserOut:
    """An account as it is told."""
    user = person.user
    return UserOut(
        id=user.id,
        name=user.name,
        role=user.role,
        teams=person.teams,
        has_password=user.password is not None,
        invited=person.is_invited,
        disabled_at=user.disabled_at,
        created_at=user.created_at,
    )
