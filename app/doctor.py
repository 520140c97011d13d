"""Whether this machine has what a server needs: each finding a line, with the remedy where something is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import redis
from sqlalchemy.exc import SQLAlchemyError

from app import claims, machine, migrate, redis_server, workers
from app.api.health import redis_address
from app.db import Database
from app.services import store_of
from app.settings import Settings
from engine import native

SOUND_SQLITE = (3, 51, 3)
GIB = 2**30
ENOUGH_BYTES = 2 * GIB  # for one engine
LOCAL = frozenset({None, "localhost", "127.0.0.1", "::1"})


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
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python,
        _torch,
        _devices,
        _compiler,
        _memory,
        _redis,
        _database,
        _sqlite,
        _workers,
        _bucket,
        _disk,
        _private,
        _data,
        _tls,
    )
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


def _compiler(_: Settings) -> Finding:
    """Recovery goes through the teachers' norms in code of our own, for which a GPU wants one too: decisions 12, 14."""
    if importlib.util.find_spec("torch") is None:
        return Finding(name="compiler", ok=True, detail="not wanted: no step computes here")
    if native.norms() is not None:
        return Finding(name="compiler", ok=True, detail="there is one: recovery's norms are compiled where it runs")
    slower = "is slower" if machine.gpus() else "takes up to twice as long on this CPU"
    detail = f"none that works: recovery {slower} (Debian, Ubuntu: apt install gcc libc6-dev)"
    return Finding(name="compiler", ok=True, detail=detail, warns=True)


def _memory(settings: Settings) -> Finding:
    free, total = machine.memory()
    detail = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    taken = [(gpu, found) for gpu in machine.gpus() for found in machine.processes().get(gpu.uuid, ())]
    if taken and not settings.share_gpus:
        gpu, process = taken[0]
        detail += f"; {process.name} (process {process.pid}) computes on {gpu.id}: a worker takes no steps there until it ends"
    if free >= ENOUGH_BYTES:
        return Finding(name="memory", ok=True, detail=detail, warns=bool(taken and not settings.share_gpus))
    remedy = "steps wait until 2 GiB are free: end other programs, or set FADRM_MATCH_MEMORY=0"
    return Finding(name="memory", ok=True, detail=f"{detail}: {remedy}", warns=True)


def _workers(settings: Settings) -> Finding:
    if not settings.database_url and not (settings.home / "fadrm.db").exists():
        return Finding(name="workers", ok=True, detail="none yet: `fadrm up` starts them")
    database = Database(settings.database)
    try:
        with database.read() as session:
            found = workers.online(session)
            waiting = claims.count_runnable(session)
    except SQLAlchemyError:
        return Finding(name="workers", ok=True, detail="not known: the database does not answer", warns=True)
    finally:
        database.close()
    if not found:
        remedy = (
            f"none was heard of in the last {workers.ONLINE_S} s: start `fadrm up`, or `fadrm worker` on each machine"
        )
        return Finding(name="workers", ok=not waiting, detail=f"{remedy} ({waiting} steps wait)", warns=True)
    idle = [worker.id for worker in found if worker.draining_by]
    drained = f"; drained: {', '.join(idle)} (`fadrm drain WORKER --undo`)" if idle else ""
    return Finding(name="workers", ok=True, detail=f"{len(found)} online{drained}", warns=bool(idle))


def _private(settings: Settings) -> Finding:
    """The home folder holds the database, the secret and Redis's password."""
    if not settings.home.exists() or not settings.home.stat().st_mode & 0o077:
        return Finding(name="private", ok=True, detail=f"{settings.home} is its owner's alone")
    detail = f"others of this machine may look into {settings.home}: chmod 700 {settings.home}"
    return Finding(name="private", ok=False, detail=detail)


def _data(settings: Settings) -> Finding:
    bad = [str(root) for root in settings.data_roots if not root.is_dir() or not os.access(root, os.R_OK | os.X_OK)]
    if bad:
        detail = f"{', '.join(bad)}: no folder that can be read; mend FADRM_DATA_ROOTS, or the folder's mode"
        return Finding(name="data", ok=False, detail=detail)
    roots = ", ".join(map(str, settings.data_roots))
    return Finding(name="data", ok=True, detail=roots or "no folders allowed: set FADRM_DATA_ROOTS to distil your own")


def _tls(settings: Settings) -> Finding:
    """Whoever lets other machines in lets their passwords travel."""
    public = urlsplit(settings.public_url)
    if public.scheme != "http" or public.hostname in LOCAL:
        return Finding(
            name="tls", ok=True, detail=settings.public_url or "served to this machine alone, as far as is set"
        )
    detail = (
        f"{settings.public_url} is not encrypted: put a proxy with TLS before it (docker/Caddyfile), and say https://"
    )
    return Finding(name="tls", ok=True, detail=detail, warns=True)


def _redis(settings: Settings) -> Finding:
    try:
        if settings.redis_url:
            with redis.Redis.from_url(redis_address(settings.redis_url), socket_timeout=3) as client:
                client.ping()
            return Finding(name="redis", ok=True, detail="answers")
        program = redis_server.find_program()
        return Finding(name="redis", ok=True, detail=f"{program} {redis_server.version_of(program)}, to be embedded")
    except (redis.RedisError, redis_server.NoRedis) as error:
        remedy = "start it, or mend FADRM_REDIS_URL; work goes on meanwhile, and begins some seconds later"
        detail = str(error) if isinstance(error, redis_server.NoRedis) else f"does not answer ({error}): {remedy}"
        return Finding(name="redis", ok=False, detail=detail)


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


def _bucket(settings: Settings) -> Finding:
    if not settings.bucket:
        return Finding(name="bucket", ok=True, detail="none: the store is a folder")
    try:
        store_of(settings).check()
    except OSError as error:
        return Finding(name="bucket", ok=False, detail=f"{error} See FADRM_BUCKET, FADRM_S3_ENDPOINT, AWS_*")
    return Finding(name="bucket", ok=True, detail=f"{settings.bucket} answers")


def _disk(settings: Settings) -> Finding:
    existing = next(path for path in (settings.store_root, *settings.store_root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    writable = _can_write(existing)
    detail = f"{free / GIB:.0f} GiB free at {existing}" + (
        "" if writable else ", which cannot be written: mend its mode"
    )
    reserve = max(settings.reserve_bytes, int(settings.reserve_share * shutil.disk_usage(existing).total))
    if free < reserve:
        detail += ": below the reserve, so no step begins. `fadrm storage` shows what could go (FADRM_RESERVE_BYTES)"
    return Finding(name="disk", ok=writable and free >= reserve, detail=detail)


def _can_write(folder: Path) -> bool:
    probe = folder / ".fadrm-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError:
        return False
    return True
