"""Settings: one's own account, and for administrators people, teams, the audit log and the limits of the server."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app import auth, passwords, people, problems, settings, views
from app.api import account
from app.api.people import InvitationOut, UserIn, audit_page, invitation_out
from app.deps import AdminDep, IdentityDep, ManagerDep, ServicesDep
from app.errors import Conflict, Forbidden, ServiceError, Unprocessable
from app.models import User
from app.pages.new import PostedDep
from app.pages.render import page
from app.planning import NAME
from app.services import Services

ADMIN_PAGES = (("/settings/people", "People"), ("/settings/audit", "Audit log"), ("/settings/limits", "Limits"))
DAYS = {"7": 7, "30": 30, "90": 90, "365": 365, "": None}
Secret = Annotated[str, Form(max_length=400)]


class AuditAsked(BaseModel):
    """What of the audit log is shown."""

    action: str = ""
    actor: str = ""
    after: views.AuditCursor = ""


def router() -> APIRouter:
    """/settings and below."""
    routes = APIRouter(prefix="/settings")
    _account(routes)
    _people(routes)
    _read_only(routes)
    return routes


def _account(routes: APIRouter) -> None:
    @routes.get("")
    def own_account(request: Request, services: ServicesDep, identity: IdentityDep) -> HTMLResponse:
        return _account_page(request, services, identity)

    @routes.post("/password")
    def password(
        request: Request,
        services: ServicesDep,
        identity: IdentityDep,
        _user: ManagerDep,
        current: Secret = "",
        new: Secret = "",
        again: Secret = "",
    ) -> Response:
        try:
            if new != again:
                raise Unprocessable("The two new passwords differ.")
            account.replace_password(services, identity, current, new)
        except (Unprocessable, Forbidden) as error:
            return _account_page(request, services, identity, wrong={"password": error}, status=error.status)
        return _account_page(
            request, services, identity, done="The password is another now, and other browsers are out."
        )

    @routes.post("/tokens")
    def make_token(
        request: Request, services: ServicesDep, identity: IdentityDep, user: ManagerDep, posted: PostedDep
    ) -> HTMLResponse:
        asked = {"name": _last(posted, "name"), "days": DAYS.get(_last(posted, "days"), auth.API_DAYS)}
        try:
            wanted = account.TokenIn.model_validate(asked | {"scopes": list(posted.get("scope", ()))})
        except ValidationError as error:
            wrong = problems.invalid(error.errors(), asked, prefix="/")
            return _account_page(request, services, identity, wrong={"token": wrong}, status=422)
        token, plain = account.new_token(services, user, wanted)
        return _account_page(request, services, identity, made=plain, made_name=token.name)

    @routes.post("/tokens/{token_id}/revoke")
    def revoke_token(services: ServicesDep, user: ManagerDep, token_id: str) -> Response:
        account.revoke(services, user, token_id, "api")
        return RedirectResponse("/settings", 303)

    @routes.post("/sessions/{session_id}/end")
    def end_session(services: ServicesDep, user: ManagerDep, session_id: str) -> Response:
        account.revoke(services, user, session_id, "session")
        return RedirectResponse("/settings", 303)


def _people(routes: APIRouter) -> None:
    @routes.get("/people")
    def people_page(request: Request, services: ServicesDep, _admin: AdminDep) -> HTMLResponse:
        return _people_page(request, services)

    @routes.post("/people")
    def add(
        request: Request, services: ServicesDep, admin: AdminDep, _user: ManagerDep, posted: PostedDep
    ) -> HTMLResponse:
        asked = {"name": _last(posted, "name"), "role": _last(posted, "role"), "teams": list(posted.get("team", ()))}
        try:
            wanted = UserIn.model_validate(asked)
            with services.database.write() as session:
                user = people.add(session, admin, wanted.name, wanted.role, wanted.teams)
                plain = people.invite(session, admin, user)
        except ValidationError as error:
            return _people_page(request, services, error=problems.invalid(error.errors(), asked, prefix="/"))
        except (Conflict, Unprocessable) as error:
            return _people_page(request, services, error=error)
        return _people_page(request, services, user, invitation_out(request, services, user, plain))

    @routes.post("/people/{user_id}")
    def change(
        request: Request, services: ServicesDep, admin: AdminDep, _user: ManagerDep, user_id: str, posted: PostedDep
    ) -> Response:
        action, changes = _last(posted, "action"), dict[str, Any]()
        if action in {"disable", "enable"}:
            changes["is_disabled"] = action == "disable"
        else:
            changes = {"role": _role(_last(posted, "role")), "teams": list(posted.get("team", ()))}
        try:
            with services.database.write() as session:
                people.change(session, admin, people.person(session, user_id).user, **changes)
        except (Conflict, Unprocessable) as error:
            return _people_page(request, services, error=error)
        return RedirectResponse("/settings/people", 303)

    @routes.post("/people/{user_id}/invitation")
    def invite(
        request: Request,
        services: ServicesDep,
        admin: AdminDep,
        _user: ManagerDep,
        user_id: str,
        reset: Annotated[bool, Form()] = False,
    ) -> HTMLResponse:
        try:
            with services.database.write() as session:
                user = people.person(session, user_id).user
                plain = people.invite(session, admin, user, reset=reset)
        except Conflict as error:
            return _people_page(request, services, error=error)
        return _people_page(request, services, user, invitation_out(request, services, user, plain))

    @routes.post("/teams")
    def add_team(request: Request, services: ServicesDep, admin: AdminDep, posted: PostedDep) -> Response:
        name = _last(posted, "name")
        try:
            with services.database.write() as session:
                people.add_team(session, admin, NAME.validate_python(name))
        except ValidationError as error:
            return _people_page(request, services, error=problems.invalid(error.errors(), {"name": name}, prefix="/"))
        except Conflict as error:
            return _people_page(request, services, error=error)
        return RedirectResponse("/settings/people", 303)

    @routes.post("/teams/remove")
    def drop_team(services: ServicesDep, admin: AdminDep, posted: PostedDep) -> Response:
        with services.database.write() as session:
            people.remove_team(session, admin, _last(posted, "name"))
        return RedirectResponse("/settings/people", 303)


def _read_only(routes: APIRouter) -> None:
    @routes.get("/audit")
    def audit_log(
        request: Request, services: ServicesDep, _admin: AdminDep, asked: Annotated[AuditAsked, Query()]
    ) -> HTMLResponse:
        found = audit_page(services, limit=50, **asked.model_dump())
        return _page(request, "settings/audit.html", page=found, asked=asked)

    @routes.get("/limits")
    def limits(request: Request, services: ServicesDep, _admin: AdminDep) -> HTMLResponse:
        return _page(request, "settings/limits.html", shown=list(settings.shown(services.settings)))


def _page(request: Request, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    is_admin = request.state.identity.user.role == "admin"
    pages = (("/settings", "Your account"), *(ADMIN_PAGES if is_admin else ()))
    return page(request, name, status=status, pages=pages, **context)


def _account_page(
    request: Request,
    services: Services,
    identity: auth.Identity,
    *,
    wrong: dict[str, ServiceError] | None = None,
    status: int = 200,
    **more: str,
) -> HTMLResponse:
    with services.database.read() as session:
        kept = session.get_one(User, identity.user.id)
        context = {
            "teams": people.teams_of(session, identity.user),
            "tokens": auth.tokens_of(session, identity.user),
            "sessions": auth.sessions_of(session, identity.user),
            "has_password": kept.password is not None,
        }
    scopes = [scope for scope, role in auth.SCOPES.items() if auth.reaches(identity.user.role, role)]
    known: dict[str, Any] = {
        "wrong": {"password": None, "token": None} | (wrong or {}),
        "done": "",
        "made": "",
        "made_name": "",
        "days": DAYS,
        "scopes": scopes,
    }
    known |= {"default_days": str(auth.API_DAYS), "default_scopes": auth.API_SCOPES, "least": passwords.LEAST}
    here = {"current": identity.token.id, "here": "/settings"}
    return _page(request, "settings/account.html", status=status, **(known | context | here | more))


def _people_page(
    request: Request,
    services: Services,
    whose: User | None = None,
    link: InvitationOut | None = None,
    error: ServiceError | None = None,
) -> HTMLResponse:
    with services.database.read() as session:
        found, teams = people.everybody(session), people.teams(session)
    context = {"people": found, "teams": teams, "link": link, "whose": whose, "error": error, "roles": auth.ROLES}
    status = error.status if error else 200
    return _page(request, "settings/people.html", status=status, here="/settings/people", **context)


def _role(text: str) -> str:
    if text not in auth.ROLES:
        raise Unprocessable(f"{text[:80]!r} is no role.", hint=f"Choose one of {', '.join(auth.ROLES)}.")
    return text


def _last(posted: PostedDep, name: str) -> str:
    return (posted.get(name) or [""])[-1]
