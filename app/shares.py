"""What each user had of the workers lately: the measure of a fair share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, case, func, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from app.models import Attempt

WINDOW_S = 24 * 3600.0  # older work is forgotten
# Users whose shares differ by less are equal, and a running step counts as at least so much: workers do not change the
# user, and with them the engine, at every step, and whoever comes first does not get all workers in one moment.
GRAIN_S = 60.0
LOST = "lost"  # outcome of an attempt whose worker died: nobody is charged for the time until that was noticed


class UnixSeconds(GenericFunction[float]):
    """A time as seconds since 1970."""

    type = Float()
    inherit_cache = True


@compiles(UnixSeconds)
def _standard(element: UnixSeconds, compiler: SQLCompiler, **words: Any) -> str:
    return f"CAST(EXTRACT(EPOCH FROM {compiler.process(element.clauses, **words)}) AS DOUBLE PRECISION)"


@compiles(UnixSeconds, "sqlite")
def _sqlite(element: UnixSeconds, compiler: SQLCompiler, **words: Any) -> str:
    return f"((julianday({compiler.process(element.clauses, **words)}) - 2440587.5) * 86400.0)"


def used(now: float) -> Select[str, float]:
    """Owner -> seconds that workers gave them in the window. now: Unix time. Owners who had none are left out."""
    since = now - WINDOW_S
    began = _later(UnixSeconds(Attempt.started_at), since)
    seconds = case(
        (Attempt.finished_at.is_(None), _later(now - began, GRAIN_S)),
        else_=UnixSeconds(Attempt.finished_at) - began,
    )
    recent = or_(Attempt.finished_at.is_(None), Attempt.finished_at >= datetime.fromtimestamp(since, UTC))
    return (
        select(Attempt.owner_id, func.sum(seconds).label("seconds"))
        .where(recent, Attempt.outcome.is_distinct_from(LOST))
        .group_by(Attempt.owner_id)
    )


def _later(value: ColumnElement[float], least: float) -> ColumnElement[float]:
    return case((value > least, value), else_=least)
