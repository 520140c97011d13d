"""The app: `create_app(services)`. Everything under /api/v1 is JSON, everything else pages of the same rules."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache

import uvicorn
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from app import api, auth, login, pages, problems
from app.api import document, health
from app.datasets import FactsCache
from app.deps import check_csrf
from app.metrics import Measured, Metrics
from app.metrics import router as metric_routes
from app.middleware import Envelope, Guard, Head
from app.services import Services
from app.settings import Settings
from app.storage.janitor import Janitor
from app.stream import Hub
from app.sweeper import Sweeper
from engine import __version__

GRACEFUL_S = 5  # an open stream would else keep a server alive after SIGTERM for as long as its tab is open


def create_app(services: Services, *, background: bool = True) -> FastAPI:
    """An app of its own. background: also sweep and ring; one process of several may leave that to the others."""
    secret = auth.load_secret(services.settings)
    metrics = Metrics(services)
    app = FastAPI(
        title="FADRM Server",
        version=__version__,
        description=document.DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(services, background),
        routes=_routes(),
        middleware=[
            Middleware(Envelope),
            Middleware(Measured, metrics=metrics),
            Middleware(Guard, services=services, secret=secret, hosts=hosts(services.settings)),
            Middleware(Head),
        ],
    )
    app.state.services = services
    app.state.secret = secret
    app.state.hub = Hub(
        services.database,
        most=services.settings.max_streams,
        most_per_user=services.settings.max_streams_per_user,
    )
    app.state.unpacking = threading.BoundedSemaphore(services.settings.max_unpacking_at_once)
    app.state.facts = FactsCache()
    app.state.metrics = metrics
    app.state.hub.on_lag = metrics.event_lag.observe
    app.state.throttle = login.Throttle()
    app.state.error_page = pages.error_page
    problems.install(app)
    document.install(app)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Of every app of a process: they know nothing of its services, and take a tenth of a second to make."""
    made = APIRouter(dependencies=[Depends(check_csrf)], generate_unique_id_function=_operation_id)
    for part in (health.router, metric_routes, login.router, api.router(), pages.router()):
        made.include_router(part)
    return made.routes


def hosts(settings: Settings) -> list[str]:
    """Names that this server answers to: a page that made its own name point here gets nothing."""
    public = settings.public_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    name = public if public.endswith("]") else public.rpartition(":")[0] or public
    return [*settings.hosts, *([name] if name else [])]


def _operation_id(route: APIRoute) -> str:
    return route.name


def _lifespan(services: Services, background: bool) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        hub: Hub = app.state.hub
        helpers: list[Sweeper | Janitor] = [Sweeper(services), Janitor(services)] if background else []
        hub.start()
        for helper in helpers:
            helper.start()
        yield
        await hub.stop()
        for helper in helpers:
            await run_in_threadpool(helper.stop)

    return lifespan


class Server(uvicorn.Server):
    """Ends the streams before it waits for requests to end, so that it stops within a second."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.hub.close()
        await super().shutdown(sockets)


def server(app: FastAPI, *, host: str, port: int) -> Server:
    """A server of one process for this app; `server(...).run()` serves until a signal."""
    has_proxy = bool(app.state.services.settings.public_url)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=GRACEFUL_S,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=has_proxy,  # without one, whoever is on this machine could name any address as theirs
    )
    return Server(config)
