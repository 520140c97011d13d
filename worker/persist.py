"""Writing to a database that may be away for a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.db import Database

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
LAST_TRIES_S = 5.0  # a worker that is to stop tries no longer: the lease runs out by itself
UNWRITABLE = (SQLAlchemyError, OverflowError)  # sqlite3 raises the latter itself, for numbers beyond 64 bits
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


def is_passing(error: Exception) -> bool:
    """Whether the same statement may succeed later: the database is away, or busy."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout)


def patiently(database: Database, action: Callable[[Session], Answer], *, stop: Callable[[], bool]) -> Answer:
    """Run a transaction, again and again while the database is away. Every other error is raised."""
    pause_s, began = FIRST_PAUSE_S, time.monotonic()
    while True:
        try:
            with database.write() as session:
                return action(session)
        except SQLAlchemyError as error:
            if not is_passing(error) or (stop() and time.monotonic() - began > LAST_TRIES_S):
                raise
            log.warning("database away: trying again", extra={"error": str(error), "pause_s": pause_s})
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
