"""Whether the server lives, and whether it can do its work. Open to all, so it tells nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from app import migrate
from app.deps import ServicesDep
from app.models import utc_now
from app.services import Services
from app.storage import room
from app.storage.bucket import BucketAway
from app.workers import ONLINE_S, online

router = APIRouter(tags=["health"])
TIMEOUT_S = 0.5


class CheckOut(BaseModel):
    """One thing that the server needs."""

    ok: bool
    detail: str
    ms: float


class ReadyOut(BaseModel):
    """Everything that it needs."""

    ready: bool
    checks: dict[str, CheckOut]


MISSING = {"ok": False, "detail": f"none was heard of in the last {ONLINE_S} s", "ms": 1.2}
NOT_READY: dict[str, Any] = {"example": {"ready": False, "checks": {"workers": MISSING}}}


class AliveOut(BaseModel):
    """The process answers."""

    alive: bool = True


@router.get("/healthz", summary="The process answers")
def get_health() -> AliveOut:
    return AliveOut()


@router.get(
    "/readyz",
    summary="Database, store, disk, Redis and workers, each by itself; 503 when one is missing",
    responses={
        503: {"model": ReadyOut, "description": "Something is missing", "content": {"application/json": NOT_READY}}
    },
)
def get_readiness(response: Response, services: ServicesDep) -> ReadyOut:
    checks = {name: _checked(check, services) for name, check in CHECKS.items()}
    ready = all(check.ok for check in checks.values())
    response.status_code = 200 if ready else 503
    response.headers["Cache-Control"] = "no-store"
    return ReadyOut(ready=ready, checks=checks)


class Missing(Exception):
    """A check failed, in words."""


def _checked(check: Callable[[Services], str], services: Services) -> CheckOut:
    began = time.monotonic()
    try:
        ok, detail = True, check(services)
    except Missing as missing:
        ok, detail = False, str(missing)
    except (OSError, SQLAlchemyError, redis.RedisError) as error:
        ok, detail = False, f"no answer ({type(error).__name__})"
    return CheckOut(ok=ok, detail=detail, ms=round(1000 * (time.monotonic() - began), 1))


def _database(services: Services) -> str:
    with services.database.engine.connect() as connection:
        if not migrate.is_current(connection):
            raise Missing("the schema is not the newest: run the migrations")
    return "answers, and its schema is the newest"


def _store(services: Services) -> str:
    try:
        services.store.check()
    except BucketAway as error:
        raise Missing(str(error)) from error
    return "can be written"


def _disk(services: Services) -> str:
    found = room.disk(services)
    if found.is_full:
        raise Missing(f"too little for new work: {found}")
    return f"{room.gb(found.free_bytes)} free, {room.gb(found.reserve_bytes)} of them in reserve"


def _redis(services: Services) -> str:
    url = services.settings.redis_url
    if not url:
        return "none: workers look by themselves"
    with redis.Redis.from_url(redis_address(url), socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S) as client:
        client.ping()
    return "answers"


def _workers(services: Services) -> str:
    with services.database.read() as session:
        found = online(session)
    if not found:
        raise Missing(f"none was heard of in the last {ONLINE_S} s")
    ready = sum(worker.draining_by is None and not worker.refuses and not worker.strangers for worker in found)
    oldest_s = max((utc_now() - worker.seen_at).total_seconds() for worker in found)
    return f"{len(found)} online, {ready} of them take steps; the quietest was heard of {max(oldest_s, 0):.0f} s ago"


CHECKS = {"database": _database, "store": _store, "disk": _disk, "redis": _redis, "workers": _workers}


def redis_address(url: str) -> str:
    """Celery's way of naming a socket (`redis+socket://`) as the Redis client has it."""
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/")
    return f"unix://{parts.netloc}{parts.path}?db={database or 0}"
