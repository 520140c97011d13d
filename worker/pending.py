"""What an engine told and nobody wrote down yet: bounded, however fast it talks and however long the database is away."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from engine.events import Checkpointed, Event, Injection, Log, Metric, Preview, Progress

MOST_PENDING = 10_000
MOST_METRICS, MOST_LINES, MOST_PREVIEWS = 500, 100, 50  # of one batch: one transaction a second carries them easily


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
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, event in enumerate(events):
        curves = tuple(sorted(event.values)) if isinstance(event, Metric) else ()
        alike.setdefault((event.type, *curves), []).append(index)
    num_curves = sum(kind == "metric" for kind, *_ in alike)
    kept = {index for indices in alike.values() for index in _chosen(events[indices[0]], indices, num_curves)}
    story = [events[index] for index in sorted(kept)]
    dropped = sum(isinstance(event, Log) for event in events) - sum(isinstance(event, Log) for event in story)
    return [Log(message=f"({dropped} lines were left out here)", level="warning"), *story] if dropped else story


def _chosen(example: Event, indices: list[int], num_curves: int) -> list[int]:
    """Which of some events of one kind to keep."""
    match example:
        case Progress() | Checkpointed():
            return indices[-1:]
        case Metric():
            return _thinned(indices, MOST_METRICS // num_curves) if num_curves < MOST_METRICS else []
        case Preview() | Injection():
            return indices[-MOST_PREVIEWS:]
        case _:
            return indices[-MOST_LINES:]


def _thinned(indices: list[int], most: int) -> list[int]:
    """At most so many, evenly spaced, the last one among them."""
    stride = -(-len(indices) // most)
    return indices[::-1][::stride][::-1]
