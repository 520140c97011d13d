"""What routes ask for: the services, and who is asking. Coroutines, so that none of it costs a change of threads."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Form, Request
from starlette.datastructures import UploadFile

from app import auth
from app.errors import Forbidden, Unauthenticated
from app.middleware import SAFE_METHODS
from app.models import User
from app.services import Services
from app.visibility import Chosen

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELDS = ("csrf_token", "csrf")
TURN_S = 0.1  # from one look for a turn to the next
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


async def services_of(request: Request) -> Services:
    """The services of this app."""
    found: Services = request.app.state.services
    return found


async def secret_of(request: Request) -> bytes:
    """What this server signs with."""
    found: bytes = request.app.state.secret
    return found


async def identity_of(request: Request) -> auth.Identity:
    """Who came in, and by what. The guard let nobody else pass; this is the second net."""
    identity: auth.Identity | None = request.state.identity
    if identity is None:
        raise Unauthenticated("This needs a login or a token.")
    return identity


async def current_user(request: Request) -> User:
    """Who is asking."""
    return (await identity_of(request)).user


async def current_writer(request: Request) -> User:
    """Who is asking, when they may change something."""
    return auth.may_write(await current_user(request))


async def current_admin(request: Request) -> User:
    """Who is asking, when they administer this server."""
    return auth.may_administer(await current_user(request))


async def current_manager(request: Request) -> User:
    """Who is asking, when they may change their own account."""
    return auth.may_manage(await identity_of(request))


async def reading_turn(request: Request) -> AsyncIterator[None]:
    """A turn at reading what was sent, of the few that there are at once.

    Who waits for it holds none of the threads, of which every other request needs one too.
    """
    turns = request.app.state.unpacking
    while not turns.acquire(blocking=False):  # noqa: ASYNC110 - threads take turns too: `finish`
        await asyncio.sleep(TURN_S)
    try:
        yield
    finally:
        turns.release()


async def check_csrf(request: Request) -> None:
    """What a browser sends of itself (its cookie) changes nothing: a page of ours must have added its token."""
    identity: auth.Identity | None = request.state.identity
    if identity is None or identity.token.kind != "session" or request.method in SAFE_METHODS:
        return
    if not hmac.compare_digest((await _sent(request)).encode(), request.state.csrf.encode()):
        raise Forbidden(
            "The page that sent this is too old, or not ours.",
            hint=f"Load the page again; programs send {CSRF_HEADER} or, better, a bearer token.",
        )


async def _sent(request: Request) -> str:
    header = request.headers.get(CSRF_HEADER)
    if header is not None or not request.headers.get("content-type", "").startswith(FORMS):
        return header or ""
    form = await request.form()
    given = next((form[name] for name in CSRF_FIELDS if name in form), "")
    return "" if isinstance(given, UploadFile) else given


ServicesDep = Annotated[Services, Depends(services_of)]
IdentityDep = Annotated[auth.Identity, Depends(identity_of)]
SecretDep = Annotated[bytes, Depends(secret_of)]
UserDep = Annotated[User, Depends(current_user)]
WriterDep = Annotated[User, Depends(current_writer)]
ManagerDep = Annotated[User, Depends(current_manager)]
AdminDep = Annotated[User, Depends(current_admin)]
TurnDep = Annotated[None, Depends(reading_turn, scope="function")]
VisibilityField = Annotated[Chosen, Form()]
