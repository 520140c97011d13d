"""Previews on their way from the engine's folder into the store, where the pages find them while the step still runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.events import Event, Log, Preview
from engine.store import Store

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_BYTES = 20 * 2**20


def within(events: Iterable[Event], left: int) -> list[Event]:
    """The same events with the first `left` previews."""
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Preview):
            left -= 1
        if not isinstance(event, Preview) or left >= 0:
            kept.append(event)
    return kept


def keep_previews(events: Iterable[Event], out: Path, store: Store) -> tuple[list[Event], dict[str, str]]:
    """Put each preview's picture in the store: the events, and file -> hash. One that cannot be kept becomes a log line."""
    kept: list[Event] = []
    blobs: dict[str, str] = {}
    for event in events:
        if not isinstance(event, Preview):
            kept.append(event)
            continue
        try:
            blobs[event.file] = store.put_blob(_png(out, event.file))
            kept.append(event)
        except (OSError, ValueError) as error:
            kept.append(Log(message=f"The preview {event.file} could not be kept: {error}", level="warning"))
    return kept, blobs


def _png(out: Path, name: str) -> bytes:
    """The bytes of a picture in the attempt's folder, and nowhere else. Raises OSError, ValueError."""
    path = (out / name).resolve()
    if not path.is_relative_to(out.resolve()):
        raise ValueError("it lies outside of the step's folder")
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError("it is too large")
    data = path.read_bytes()
    if not data.startswith(PNG):
        raise ValueError("it is no PNG")
    return data
