"""What a preset is."""

from __future__ import annotations

from dataclasses import dataclass

from engine.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A job to start from, and what it is for."""

    name: str
    group: str  # the data set, as people call it
    title: str
    note: str  # for whom, on what, how long
    spec: JobSpec
