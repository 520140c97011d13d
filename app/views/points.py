"""The points of curves, thinned where they are stored: a long curve is never read whole.

Of a curve with too many points the ends are kept, and the least and the greatest of each stretch of x, so that no spike is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from sqlalchemy import BigInteger, Select, cast, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.models import Metric

Point = tuple[int, float]
Series = defaultdict[str, dict[str, list[Point]]]  # step's key -> curve's name -> points in order of x
AT_ONCE = 200  # curves in one query


def points_of(session: Session, keys: Collection[str], names: Sequence[str], max_points: int) -> Series:
    """The curves of some steps, at most `max_points` points each. names: only these, or what begins with one and a dot."""
    found: Series = defaultdict(dict)
    short: list[tuple[str, str]] = []
    for key, name, count, first, last in session.execute(_sizes(keys)):
        if not _is_wanted(name, names):
            continue
        if count > max_points:
            found[key][name] = _thinned(session, key, name, first, last, max_points)
        else:
            short.append((key, name))
    for start in range(0, len(short), AT_ONCE):
        for key, name, x, value in session.execute(_whole(short[start : start + AT_ONCE])):
            found[key].setdefault(name, []).append((x, value))
    return found


def _is_wanted(name: str, names: Sequence[str]) -> bool:
    return not names or any(name == wanted or name.startswith(f"{wanted}.") for wanted in names)


def _sizes(keys: Collection[str]) -> Select[str, str, int, int, int]:
    """Of each curve: how many points, and the ends of x."""
    query = select(Metric.step_key, Metric.name, func.count(), func.min(Metric.x), func.max(Metric.x))
    return query.where(Metric.step_key.in_(keys)).group_by(Metric.step_key, Metric.name)


def _whole(curves: Sequence[tuple[str, str]]) -> Select[str, str, int, float]:
    query = select(Metric.step_key, Metric.name, Metric.x, Metric.value)
    return query.where(tuple_(Metric.step_key, Metric.name).in_(curves)).order_by(
        Metric.step_key, Metric.name, Metric.x
    )


def _thinned(session: Session, key: str, name: str, first: int, last: int, max_points: int) -> list[Point]:
    """Two points a stretch and the two ends, read by one query."""
    stretches = max((max_points - 2) // 2, 1)
    of_curve = (Metric.step_key == key) & (Metric.name == name)
    stretch = (cast(Metric.x - first, BigInteger) * stretches // (last - first + 1)).label("stretch")
    own = select(Metric.x, Metric.value, stretch).where(of_curve, Metric.x > first, Metric.x < last).subquery()
    # By windows, as there is then nothing to be joined: without statistics PostgreSQL joins 100,000 points one by one.
    least = func.min(own.c.value).over(partition_by=own.c.stretch).label("least")
    greatest = func.max(own.c.value).over(partition_by=own.c.stretch).label("greatest")
    seen = select(own, least, greatest).subquery()
    kept = (
        select(func.min(seen.c.x), seen.c.value)
        .where(or_(seen.c.value == seen.c.least, seen.c.value == seen.c.greatest))
        .group_by(seen.c.stretch, seen.c.value)
    )
    outer = select(Metric.x, Metric.value).where(of_curve, Metric.x.in_([first, last]))
    rows = [*session.execute(outer), *session.execute(kept)]
    return sorted((x, value) for x, value in rows)
