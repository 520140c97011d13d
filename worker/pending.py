"""What an engine told and nobody wrote down yet: bounded, however fast it talks and however long the database is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TypeVar

from engine.events import Checkpointed, Event, Injection, Log, Metric, Preview, Progress

MOST_PENDING = 10_000
MOST_METRICS, MOST_LINES, MOST_PREVIEWS = 500, 100, 50  # of one batch: one transaction a second carries them easily
Kept = TypeVar("Kept")


class Pending:
    """Filled by the threads that read from the engine, emptied by the one that writes to the database."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def add(self, event: Event) -> None:
        """One more event."""
        with self._lock:
            self._events.append(event)
            if len(self._events) >= MOST_PENDING:
                self._events = coalesced(self._events)

    def take(self) -> list[Event]:
        """Everything there is, thinned to what one transaction should carry."""
        with self._lock:
            events, self._events = self._events, []
        return coalesced(events)

    def give_back(self, events: Sequence[Event]) -> None:
        """What could not be written: it comes before all that is newer."""
        with self._lock:
            self._events = [*events, *self._events]
            if len(self._events) >= MOST_PENDING:
                self._events = coalesced(self._events)


def coalesced(events: Sequence[Event]) -> list[Event]:
    """The same story in fewer events, in order: the last progress and checkpoint, curves with fewer points, fewer lines."""
    kept: set[int] = set()
    places: dict[type, list[int]] = {}
    for index, event in enumerate(events):
        places.setdefault(type(event), []).append(index)
    for kind, indices in places.items():
        kept.update(_chosen(kind, indices))
    story = [event for index, event in enumerate(events) if index in kept]
    dropped = len(places.get(Log, ())) - sum(isinstance(event, Log) for event in story)
    return [Log(message=f"({dropped} lines were left out here)", level="warning"), *story] if dropped else story


def _chosen(kind: type, indices: list[int]) -> list[int]:
    if kind in (Progress, Checkpointed):
        return indices[-1:]
    if kind is Metric:
        return _thinned(indices, MOST_METRICS)
    if kind is Log:
        return indices[-MOST_LINES:]
    if kind in (Preview, Injection):
        return indices[-MOST_PREVIEWS:]
    return indices[-MOST_LINES:]


def _thinned(indices: list[int], most: int) -> list[int]:
    """At most so many, evenly spaced, the last one among them."""
    stride = -(-len(indices) // most)
    return indices[::-1][::stride][::-1]
