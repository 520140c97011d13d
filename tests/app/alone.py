"""A coroutine run to its end where a browser's own loop may be running in the same thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


def alone(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What it returns or raises; it runs in a thread and a loop of its own."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()
