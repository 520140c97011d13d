"""The database: engine, sessions, and the two dialects' ways of being safe."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker

BUSY_TIMEOUT_MS = 15_000
MOST_WAITING = 36  # to write, of the 40 threads that the API answers from: who only reads finds one
LOCKED_S, VANISHED_S = 5, 30
JOURNAL_LIMIT_BYTES = 64 * 2**20


class Base(DeclarativeBase):
    """Rows. Constraint names follow one convention, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Database:
    """Sessions for reading and for writing. On SQLite every write transaction begins IMMEDIATE, one at a time a process."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(immediate=True), expire_on_commit=False)
        # SQLite's own waiting is not fair: queueing here first takes p99 at 16 writers from 650 to 82 ms.
        self._turn = threading.Lock() if self.engine.dialect.name == "sqlite" else None
        self._places = threading.BoundedSemaphore(MOST_WAITING)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that only looks."""
        with self._read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        with self._in_turn(), self._write.begin() as session:
            yield session

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Raises TimeoutError where no turn comes in time, or too many wait: else each of them would wait for all."""
        if self._turn is None:
            yield
            return
        if not self._places.acquire(blocking=False):
            raise PoolTimeout(f"{MOST_WAITING} wait to write already")
        try:
            if not self._turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
                raise PoolTimeout(f"no turn to write came within {BUSY_TIMEOUT_MS / 1000:.0f} s")
            try:
                yield
            finally:
                self._turn.release()
        finally:
            self._places.release()

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def _engine(url: str) -> Engine:
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False})
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    return create_engine(url, pool_pre_ping=True, connect_args=_postgres_arguments())


def _postgres_arguments() -> dict[str, Any]:
    """A machine that freezes or vanishes in the middle of a transaction holds its locks, maybe that of claiming: the server
    ends such a transaction soon, and either side finds out that the other is gone, where TCP alone would take hours."""
    probes = {
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 1000 * VANISHED_S,
    }
    limits = {"lock_timeout": f"{LOCKED_S}s", "idle_in_transaction_session_timeout": f"{VANISHED_S}s"}
    limits |= {name if name.startswith("tcp_") else f"tcp_{name}": str(value) for name, value in probes.items()}
    return {
        "connect_timeout": 10,
        **probes,
        "options": " ".join(f"-c {name}={value}" for name, value in limits.items()),
    }


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # accepted means committed, also through a power cut
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
        f"journal_size_limit={JOURNAL_LIMIT_BYTES}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    # A read that turns into a write fails at once in spite of the timeout, so writers say so from the start.
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
