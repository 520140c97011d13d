"""Logging in and out in a browser: by name and password, by a one-time link, or by an API token typed by hand."""

from __future__ import annotations

import logging
import threading
import time
import unicodedata
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from app import audit, auth, passwords, people
from app.deps import ServicesDep
from app.errors import TooMany, Unprocessable
from app.middleware import cookie_name, is_secure
from app.models import User
from app.pages.render import page
from app.planning import MOST_NAME
from app.services import Services

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)
FAILURES, WINDOW_S = 10, 60.0
UNKNOWN = "This link or token is not known, was used already, or is not valid any more."
WRONG = "There is nobody of this name with this password."
Next = Annotated[str, Form(max_length=2000)]
Secret = Annotated[str, Form(max_length=400)]


@dataclass(slots=True)
class Throttle:
    """Counts the attempts of each address and on each account that have not succeeded: passwords cannot be tried out.

    An attempt counts before it is looked at, so that many at once are no way around.
    """

    _attempts: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=FAILURES)))
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, *keys: str) -> None:
        """Count an attempt. Raises TooMany where there were too many."""
        now = time.monotonic()
        with self._turn:
            self._attempts = _lately(self._attempts, now)
            full = [times[0] for key in keys if (times := self._attempts.get(key)) and len(times) == FAILURES]
            if full:
                wait = {"Retry-After": str(int(WINDOW_S - (now - max(full))) + 1)}
                raise TooMany("Too many failed logins.", hint="Wait a minute.", headers=wait)
            for key in keys:
                self._attempts[key].append(now)

    def succeed(self, *keys: str) -> None:
        """It was no failure."""
        with self._turn:
            for key in keys:
                if attempts := self._attempts.get(key):
                    attempts.pop()


def _lately(attempts: dict[str, deque[float]], now: float) -> dict[str, deque[float]]:
    """Without what is older than the window."""
    kept: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=FAILURES))
    for key, times in attempts.items():
        if late := [time for time in times if now - time < WINDOW_S]:
            kept[key].extend(late)
    return kept


@router.get("/login")
def show_login(request: Request, token: str = "", next: str = "/") -> HTMLResponse:  # noqa: A002 - as it is in addresses
    """Only shows a button: what merely looks at a link, as scanners of mail do, does not use it up."""
    return _form(request, token=token, wanted=next)


@router.post("/login")
def log_in(
    request: Request,
    services: ServicesDep,
    token: Secret = "",
    name: Annotated[str, Form(max_length=80)] = "",
    password: Secret = "",
    next: Next = "/",  # noqa: A002
) -> Response:
    throttle: Throttle = request.app.state.throttle
    name = _as_kept(name)
    keys = (f"address {_address(request)}", *([f"account {name.lower()}"] if name else []))
    throttle.begin(*keys)
    found = _by_password(services, request, name, password) if name else _by_token(services, request, token.strip())
    if found is None:
        log.warning("login refused", extra={"address": _address(request)})
        with services.database.write() as session:
            by = "password" if name else "link or token"
            audit.note(session, name or "somebody", "login.failed", name or by, by=by, address=_address(request))
        return _form(request, error=WRONG if name else UNKNOWN, who=name, wanted=next, status=401)
    throttle.succeed(*keys)
    user, cookie = found
    log.info("login", extra={"user": user.name, "address": _address(request)})
    return _let_in(request, services, cookie, _within(next))


def _as_kept(name: str) -> str:
    """A name as it was typed, written as accounts have it (`planning.printable`); what no name holds is left out."""
    shown = "".join(filter(str.isprintable, name))
    return unicodedata.normalize("NFC", shown).strip()[:MOST_NAME]


def _by_password(services: Services, request: Request, name: str, password: str) -> tuple[User, str] | None:
    with services.database.read() as session:
        user_id, kept = people.check_password(session, name)
    if not passwords.matches(password, kept):
        return None
    with services.database.write() as session:
        user = session.get_one(User, user_id)
        if user.disabled_at is not None or user.password != kept:
            return None  # changed in this moment
        audit.note(session, user, "login", name, by="password", address=_address(request))
        return user, auth.begin_session(session, user, _client(request))


def _by_token(services: Services, request: Request, token: str) -> tuple[User, str] | None:
    with services.database.write() as session:
        found = auth.log_in(session, token, _client(request))
        if found is None:
            return None
        identity, cookie = found
        by = "link" if identity.token.kind == "login" else identity.token.id
        audit.note(session, identity.user, "login", identity.user.name, by=by, address=_address(request))
    return identity.user, cookie


@router.get("/invitation")
def show_invitation(request: Request, services: ServicesDep, token: str = "") -> HTMLResponse:
    """Asks for a password; does not use the link up."""
    return _invitation(request, services, token)


@router.post("/invitation")
def accept_invitation(
    request: Request, services: ServicesDep, token: Secret = "", password: Secret = "", again: Secret = ""
) -> Response:
    throttle: Throttle = request.app.state.throttle
    key = f"address {_address(request)}"
    throttle.begin(key)
    with services.database.read() as session:
        user = people.invited(session, token)
    if user is None:
        return _invitation(request, services, token)
    throttle.succeed(key)
    try:
        checked = passwords.check(password, user.name)
    except Unprocessable as error:
        return _invitation(request, services, token, f"{error.detail} {error.hint}")
    if again != password:
        return _invitation(request, services, token, "The two passwords differ.")
    kept = passwords.hashed(checked)
    with services.database.write() as session:
        found = people.accept(session, token, kept, _client(request))
    if found is None:
        return _invitation(request, services, token)
    return _let_in(request, services, found[1], "/")


def _invitation(request: Request, services: Services, token: str, error: str = "") -> HTMLResponse:
    with services.database.read() as session:
        user = people.invited(session, token)
    if user is None:
        return _form(request, error=UNKNOWN, status=401)
    shown = {"token": token, "who": user.name, "error": error, "least": passwords.LEAST}
    return page(request, "invitation.html", status=422 if error else 200, **shown)


@router.post("/logout")
def log_out(request: Request, services: ServicesDep) -> Response:
    with services.database.write() as session:
        auth.end(session, request.state.identity.token.id)
    response = RedirectResponse("/login", 303)
    secure = is_secure(request, services.settings.public_url)
    response.delete_cookie(cookie_name(secure), path="/", httponly=True, samesite="lax", secure=secure)
    return response


def _let_in(request: Request, services: Services, cookie: str, wanted: str) -> Response:
    """A new session with every login, and the end of the one that the browser had."""
    secure = is_secure(request, services.settings.public_url)
    name = cookie_name(secure)
    with services.database.write() as session:
        old = auth.identify(session, request.cookies.get(name, ""), "session")
        if old is not None:
            auth.end(session, old.token.id)
    response = RedirectResponse(wanted, 303)
    lifetime = int(auth.SESSION.total_seconds())
    response.set_cookie(name, cookie, max_age=lifetime, httponly=True, samesite="lax", secure=secure, path="/")
    return response


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _client(request: Request) -> str:
    return f"{request.headers.get('user-agent', 'a program')[:150]} from {_address(request)}"


def _form(request: Request, *, error: str = "", wanted: str = "/", status: int = 200, **shown: str) -> HTMLResponse:
    known = {"token": "", "who": ""} | shown
    return page(request, "login.html", status=status, error=error, next=_within(wanted), **known)


def _within(address: str) -> str:
    """A path of ours, or the start page: nobody is sent to another site from here."""
    foreign = not address.startswith("/") or address[1:2] in {"/", "\\"} or not address.isprintable()
    return "/" if foreign else address
