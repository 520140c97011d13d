"""Logging in and out in a browser: by a one-time link, or by an API token typed by hand."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from app import auth
from app.deps import ServicesDep
from app.errors import TooMany
from app.middleware import COOKIE
from app.pages.render import page

log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)
FAILURES, WINDOW_S = 10, 60.0
UNKNOWN = "This link or token is not known, was used already, or is not valid any more."


@dataclass(slots=True)
class Throttle:
    """Counts wrong tokens of each address. They cannot be guessed anyway; this keeps the log and the database quiet."""

    _failures: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=FAILURES)))

    def check(self, address: str) -> None:
        """Raises TooMany after too many failures."""
        failures = self._failures.get(address)
        if failures and len(failures) == FAILURES and time.monotonic() - failures[0] < WINDOW_S:
            raise TooMany("Too many wrong tokens.", hint="Wait a minute.", headers={"Retry-After": str(int(WINDOW_S))})

    def fail(self, address: str) -> None:
        """Count one, and forget the addresses that have been quiet."""
        now = time.monotonic()
        self._failures[address].append(now)
        for other in [one for one, times in self._failures.items() if now - times[-1] > WINDOW_S]:
            del self._failures[other]


@router.get("/login")
def show_login(request: Request, token: str = "", next: str = "/") -> HTMLResponse:  # noqa: A002 - as it is in addresses
    """Only shows a button: what merely looks at a link, as scanners of mail do, does not use it up."""
    return _form(request, token=token, wanted=next)


@router.post("/login")
def log_in(
    request: Request,
    services: ServicesDep,
    token: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002
) -> Response:
    throttle: Throttle = request.app.state.throttle
    address = request.client.host if request.client else ""
    throttle.check(address)
    with services.database.write() as session:
        found = auth.log_in(session, token.strip())
    if found is None:
        throttle.fail(address)
        log.warning("login refused", extra={"address": address})
        return _form(request, error=UNKNOWN, wanted=next, status=401)
    user, cookie = found
    log.info("login", extra={"user": user.name, "address": address})
    response = RedirectResponse(_within(next), 303)
    lifetime = int(auth.SESSION.total_seconds())
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, cookie, max_age=lifetime, httponly=True, samesite="lax", secure=secure, path="/")
    return response


@router.post("/logout")
def log_out(request: Request, services: ServicesDep) -> Response:
    with services.database.write() as session:
        auth.end(session, request.state.identity.token.id)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return response


def _form(request: Request, *, token: str = "", error: str = "", wanted: str = "/", status: int = 200) -> HTMLResponse:
    return page(request, "login.html", status=status, token=token, error=error, next=_within(wanted))


def _within(address: str) -> str:
    """A path of ours, or the start page: nobody is sent to another site from here."""
    foreign = not address.startswith("/") or address[1:2] in {"/", "\\"} or not address.isprintable()
    return "/" if foreign else address
