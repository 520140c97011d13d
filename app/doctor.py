"""Whether this machine has what a server needs: each finding a line, with the remedy where something is missing."""

from __future__ import annotations

import importlib.util
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import redis
from sqlalchemy.exc import SQLAlchemyError

from app import machine, migrate, redis_server
from app.api.health import redis_address
from app.db import Database
from app.settings import Settings

SOUND_SQLITE = (3, 51, 3)
ENOUGH_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    warns: bool = False  # it works, and there is something to know


def examine(settings: Settings) -> list[Finding]:
    """Look at everything."""
    return list(_findings(settings))


def _findings(settings: Settings) -> Iterator[Finding]:
    checks: tuple[Callable[[Settings], Finding], ...] = (_python, _torch, _devices, _redis, _database, _sqlite, _disk)
    for check in checks:
        yield check(settings)


def _python(_: Settings) -> Finding:
    found = sys.version_info[:2]
    return Finding(name="python", ok=(3, 11) <= found <= (3, 12), detail=sys.version.split()[0])


def _torch(_: Settings) -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding(name="torch", ok=False, detail="not installed: workers need it (pip install 'fadrm[engine]')")
    return Finding(name="torch", ok=True, detail=version("torch"))


def _devices(_: Settings) -> Finding:
    found = machine.gpus()
    detail = ", ".join(map(str, found)) or f"no GPU; {machine.cpu()}: enough for the demo and small images"
    return Finding(name="devices", ok=True, detail=detail)


def _redis(settings: Settings) -> Finding:
    try:
        if settings.redis_url:
            with redis.Redis.from_url(redis_address(settings.redis_url), socket_timeout=3) as client:
                client.ping()
            return Finding(name="redis", ok=True, detail="answers")
        program = redis_server.find_program()
        return Finding(name="redis", ok=True, detail=f"{program} {redis_server.version_of(program)}, to be embedded")
    except (redis.RedisError, redis_server.NoRedis) as error:
        return Finding(name="redis", ok=False, detail=str(error))


def _database(settings: Settings) -> Finding:
    if not settings.database_url and not (settings.home / "fadrm.db").exists():
        return Finding(name="database", ok=True, detail="SQLite, to be made at the first start")
    database = Database(settings.database)
    is_file = database.engine.dialect.name == "sqlite"
    try:
        with database.engine.connect() as connection:
            if is_file and (damage := connection.exec_driver_sql("PRAGMA quick_check").scalar_one()) != "ok":
                return Finding(name="database", ok=False, detail=f"damaged: {damage}. {migrate.REMEDY}")
            current = migrate.is_current(connection)
    except SQLAlchemyError as error:
        detail = f"does not answer: {str(error).splitlines()[0]}"
        return Finding(name="database", ok=False, detail=f"{detail}. {migrate.REMEDY}" if is_file else detail)
    finally:
        database.close()
    detail = "answers, newest schema" if current else "has an older schema: run `fadrm migrate`"
    return Finding(name="database", ok=current, detail=detail)


def _sqlite(settings: Settings) -> Finding:
    """Below SOUND_SQLITE two connections that write and checkpoint at one instant may, very rarely, damage the file."""
    found = sqlite3.sqlite_version
    if settings.database_url and not settings.database_url.startswith("sqlite"):
        return Finding(name="sqlite", ok=True, detail=f"{found}, not used: FADRM_DATABASE_URL names another database")
    if sqlite3.sqlite_version_info >= SOUND_SQLITE:
        return Finding(name="sqlite", ok=True, detail=found)
    sound = ".".join(map(str, SOUND_SQLITE))
    detail = f"{found}: before {sound} a very rare fault can damage the file. Keep backups; for a team, use PostgreSQL"
    return Finding(name="sqlite", ok=True, detail=detail, warns=True)


def _disk(settings: Settings) -> Finding:
    existing = next(path for path in (settings.store_root, *settings.store_root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = _can_write(existing)
    detail = f"{free / 2**30:.0f} GiB free at {existing}" + ("" if writable else ", which cannot be written")
    return Finding(name="disk", ok=writable and free >= ENOUGH_BYTES, detail=detail)


def _can_write(folder: Path) -> bool:
    probe = folder / ".fadrm-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
