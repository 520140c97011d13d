"""What stands before every route, as plain ASGI, so that streams flow: headers, the last resort, and who may come in."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import MutableMapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from anyio import CancelScope
from fastapi import Request
from python_multipart.multipart import parse_options_header
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import auth, problems
from app.errors import Forbidden, NotFound, ServiceError, TooLarge, Unauthenticated, UnknownHost, Unprocessable
from app.limits import Kind, Rates
from app.links import PATH as LINKS
from app.models import Token
from app.services import Services
from engine.errors import ErrorReport

log = logging.getLogger(__name__)
COOKIE = "fadrm_session"
NOTED_S = 0.5  # how long a request waits until the use of its token is noted
# Routes that count the bytes of their body themselves.
STREAMED = ("POST /api/v1/datasets", "POST /api/v1/weights", "PATCH /api/v1/uploads/")
FORMS_WITH_A_FILE = ("POST /datasets", "POST /teachers")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/login", "/invitation"})
OPEN_FOLDER = "/static/"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


HTTPS_ONLY = "max-age=31536000"


class Envelope:
    """Gives every request a number and every answer its headers, and answers for errors that nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        given = request.headers.get("x-request-id", "")
        request.state.request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        started = False

        async def send_in_envelope(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _seal(message, request)
            await send(message)

        try:
            await self.app(scope, receive, send_in_envelope)
        except Exception as error:
            if started:
                raise  # too late for an answer: the connection is broken off, and the server logs why
            await problems.last_resort(request, error)(scope, receive, send_in_envelope)


def _seal(message: MutableMapping[str, Any], request: Request) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = request.state.request_id
    if request.url.scheme == "https":
        headers["Strict-Transport-Security"] = HTTPS_ONLY
    for name, value in HEADERS.items():
        headers.setdefault(name, value)


class Guard:
    """Lets nobody in who is not known, wherever the way leads: to routes, mounts, and what is added tomorrow.

    Who came in stands in `request.state.identity`; `request.state.csrf` is what their forms must send.
    """

    def __init__(self, app: ASGIApp, services: Services, secret: bytes, hosts: Sequence[str]) -> None:
        self.app, self.services, self.secret, self.hosts = app, services, secret, hosts
        settings = services.settings
        self.rates = Rates({"reads": settings.max_reads_per_min, "writes": settings.max_writes_per_min})
        self._noting: asyncio.Future[None] | None = None

    def _most_bytes(self, request: Request) -> int:
        """Of a body that is not streamed."""
        settings = self.services.settings
        return settings.max_body_bytes + (settings.max_upload_bytes if _called(request) in FORMS_WITH_A_FILE else 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = await self._refusal(request)
        limited = receive if _is_streamed(request) else _limited(receive, self._most_bytes(request))
        await (refusal or self.app)(scope, limited, send)

    async def _refusal(self, request: Request) -> Response | None:
        request.state.identity, request.state.csrf = None, ""
        path = request.url.path
        try:
            _check_host(request, self.hosts)
            if _says_it_is_large(request, self._most_bytes(request)):
                raise TooLarge
            if _is_from_elsewhere(request, self.services.settings.public_url):
                raise Forbidden("This request comes from a page of another site.", hint="Open this server's own pages.")
            if path.startswith(LINKS):  # signed: the route looks
                self.rates.take(request.client.host if request.client else "", _kind(request))
            elif path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
                await run_in_threadpool(self._identify, request)
                await self._note_use(request.state.identity.token)
                self.rates.take(request.state.identity.user.id, _kind(request))
            _refuse_nul(request)
            _refuse_other_letters(request)
        except Unauthenticated as error:
            if problems.is_api(path):
                return problems.answer(request, error)
            wanted = f"{path}?{request.url.query}" if request.url.query else path
            return RedirectResponse(f"/login?next={quote(wanted)}", 303)
        except ServiceError as error:
            return problems.answer(request, error)
        return None

    def _identify(self, request: Request) -> None:
        plain, kind = _presented(request, self.services.settings.public_url)
        with self.services.database.read() as session:
            identity = auth.identify(session, plain, kind) if plain else None
        if identity is None:
            raise Unauthenticated(
                "The token is not known, or not valid any more." if plain else "This needs a login or a token.",
                hint="Send `Authorization: Bearer <token>`; `fadrm token create NAME` makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        request.state.identity = identity
        if kind == "session":
            request.state.csrf = auth.csrf_token(self.secret, identity.token.sha256)

    async def _note_use(self, token: Token) -> None:
        """Note that a token was used, one at a time, and soon or later: while nobody can write, who only reads is answered."""
        if auth.is_due(token) and (self._noting is None or self._noting.done()):
            self._noting = asyncio.ensure_future(run_in_threadpool(self._touch, token.id))
            await asyncio.wait([self._noting], timeout=NOTED_S)

    def _touch(self, token_id: str) -> None:
        try:
            with self.services.database.write() as session:
                auth.touch(session, token_id)
        except SQLAlchemyError as error:
            log.warning("use of a token not noted", extra={"error": repr(error)})


class Head:
    """Answers HEAD at every address as GET, without the content (RFC 9110, 9.3.2): once the head is sent, what would have
    made the rest is ended, be it a file or a stream."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}
        with CancelScope() as answering:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    scope["route"] = asked.get("route")  # for those around, who count what was asked
                    await send(message)
                    await send({"type": "http.response.body"})
                    answering.cancel()

            await self.app(asked, receive, send_head)


def _check_host(request: Request, hosts: Sequence[str]) -> None:
    """A page of another site that made its own name point here gets nothing. Raises UnknownHost."""
    called = request.headers.get("host", "").lower()
    name = called if called.endswith("]") else called.rpartition(":")[0] or called
    if not any(name == host or (host.startswith("*") and name.endswith(host[1:])) for host in hosts):
        raise UnknownHost(
            f"This server does not answer to the name {name[:80]!r}.",
            hint="Use one that it has; its administrator adds names to FADRM_HOSTS.",
        )


def _refuse_nul(request: Request) -> None:
    """No text has a NUL, and PostgreSQL takes none. Raises Unprocessable or NotFound."""
    if "\0" in request.url.path:
        raise NotFound("There is nothing under an address with a NUL character.", hint="Leave %00 out.")
    for name, value in request.query_params.multi_items():
        if "\0" in name + value:
            shown = name.replace("\0", "%00")
            message = f"{shown} holds a NUL character, which no text has."
            report = ErrorReport(code="nul", message=message, hint="Leave %00 out.", details={"parameter": shown})
            raise Unprocessable(message, hint=report.hint, errors=[report])


def _refuse_other_letters(request: Request) -> None:
    """Of forms with files: in UTF-8 every text is one that can be kept and shown, by other codecs it need not be.
    Raises Unprocessable."""
    kind, more = parse_options_header(request.headers.get("content-type", ""))
    given = more.get(b"charset", b"utf-8")
    if kind == b"multipart/form-data" and given.lower() not in {b"utf-8", b"utf8"}:
        shown = given.decode("latin-1")[:80]
        raise Unprocessable(f"The body was sent with the charset {shown!r}.", hint="Send it as UTF-8.")


def _called(request: Request) -> str:
    return f"{request.method} {request.url.path}"


def _is_streamed(request: Request) -> bool:
    called = _called(request)
    return any(called == one or (one.endswith("/") and called.startswith(one)) for one in STREAMED)


def _kind(request: Request) -> Kind:
    """Pieces of a file count as reads: there are many, and each was allowed when the file was announced."""
    return "reads" if request.method in SAFE_METHODS or _is_streamed(request) else "writes"


def _says_it_is_large(request: Request, most: int) -> bool:
    length = request.headers.get("content-length", "0")
    return not length.isdecimal() or (int(length) > most and not _is_streamed(request))


def _limited(receive: Receive, left: int) -> Receive:
    """For bodies that do not say how large they are."""

    async def receive_some() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413)  # this kind passes through the framework's own parsing of bodies
        return message

    return receive_some


def is_secure(request: Request, public_url: str) -> bool:
    """Whether the browser speaks TLS to us, or to a proxy before us that goes by our public address."""
    public = urlsplit(public_url)
    is_public = public.scheme == "https" and public.netloc == request.headers.get("host", "")
    return request.url.scheme == "https" or is_public


def cookie_name(secure: bool) -> str:
    """`__Host-` binds a cookie to this host and to TLS: no other server of the domain can set or read it."""
    return f"__Host-{COOKIE}" if secure else COOKIE


def _presented(request: Request, public_url: str) -> tuple[str, str]:
    """The token that a request shows, and its kind. A header wins over a cookie, also when it is wrong."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return (bearer.strip() if scheme.lower() == "bearer" else ""), "api"
    return request.cookies.get(cookie_name(is_secure(request, public_url)), ""), "session"


def _is_from_elsewhere(request: Request, public_url: str) -> bool:
    """Whether a page of another site sent a request that changes something. Programs send neither header."""
    if request.method in SAFE_METHODS or "authorization" in request.headers:
        return False
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in {"same-origin", "none"}
    origin = request.headers.get("origin")
    if origin is None:
        return False
    known = {request.headers.get("host", ""), urlsplit(public_url).netloc}
    try:
        return urlsplit(origin).netloc not in known - {""}
    except ValueError:  # `http://[`
        return True
