"""Jobs to start from, as rows of data. Torch-free."""

from __future__ import annotations

from engine.presets.paper import PAPER
from engine.presets.peers import PEERS
from engine.presets.preset import Preset
from engine.presets.small import DEMO, SMALL

__all__ = ["DEMO", "PRESETS", "Preset"]

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (*SMALL, *PEERS, *PAPER)}
