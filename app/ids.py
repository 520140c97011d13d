"""Ids: a prefix that says what they name, then time, then chance. Names, not secrets."""

from __future__ import annotations

import secrets
import time


def new_id(prefix: str) -> str:
    """A new id, greater than every earlier one of its prefix: `job_019aa5...`."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(8)}"
