"""How much one user may ask for in a minute: a bucket of requests each, which fills again all the time. In this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from app.errors import TooMany

Kind = Literal["reads", "writes"]
MOST_KNOWN = 10_000  # buckets that are remembered before full ones are forgotten


@dataclass(slots=True)
class Rates:
    """Requests a minute that a user has, by kind; 0: as many as they like. clock: seconds, for tests."""

    per_min: dict[Kind, int]
    clock: Callable[[], float] = time.monotonic
    _known: dict[tuple[str, Kind], tuple[float, float]] = field(default_factory=dict)  # requests left, and as of when

    def take(self, user_id: str, kind: Kind) -> None:
        """Count one request. Raises TooMany, with the seconds after which there is room again."""
        size = self.per_min[kind]
        if not size:
            return
        now = self.clock()
        left, at = self._known.get((user_id, kind), (float(size), now))
        left = min(size, left + (now - at) * size / 60)
        if left < 1:
            wait_s = math.ceil((1 - left) * 60 / size)
            raise TooMany(
                f"You sent more than {size:,} requests that {'change' if kind == 'writes' else 'read'} something in a minute.",
                hint="Wait, and ask less often; streams tell of changes without being asked.",
                headers={"Retry-After": str(wait_s)},
            )
        if len(self._known) >= MOST_KNOWN:
            self._forget(now)
        self._known[user_id, kind] = left - 1, now

    def _forget(self, now: float) -> None:
        """Those that are full again are as good as new ones."""
        self._known = {key: value for key, value in self._known.items() if now - value[1] < 60}
