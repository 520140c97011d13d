"""Files of the store on their way to somebody: only bytes that are those that were written."""

from __future__ import annotations

import logging
from pathlib import Path

from app.errors import Gone
from app.services import Services

log = logging.getLogger(__name__)


def sound_file(services: Services, key: str, name: str) -> Path:
    """A file of a whole step, whose hash was looked at. Raises Gone, and removes the step, when the bytes are wrong."""
    store = services.store
    try:
        damaged = store.damaged(key, only=name)
    except FileNotFoundError:
        damaged = [name]
    if damaged:
        log.error("download damaged in the store, its step is removed", extra={"key": key, "files": damaged})
        store.remove(key)
        raise Gone(
            f"The bytes of {name} are no longer those that were written, and it was removed from the store.",
            hint="Try the job again: what is lost is made anew, and nothing else.",
        )
    return store.step(key) / name
