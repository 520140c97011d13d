"""The inside of a process that reads what somebody sent: its limits, and the one way to answer. `app.confined` is the outside.

`run` makes a program of a function: an order as JSON on stdin, an answer as JSON on stdout. Nothing of ours is imported but
what reads, so it starts in a tenth of a second, and has nothing that a broken library could give away.
"""

from __future__ import annotations

import errno
import json
import re
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)


class Refusal(Exception):
    """Why something is not taken: a sentence, a hint, and facts for programs."""

    def __init__(self, detail: str, hint: str, **details: Any) -> None:
        super().__init__(detail)
        self.detail, self.hint, self.details = detail, hint, details


class DiskFull(Exception):
    """There is less room than what was sent needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What reading may cost."""

    memory_bytes: int  # of this program's address space
    seconds: int  # of computing, and of waiting
    file_bytes: int  # of one file that it writes


def run(read: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Do what stdin says within the limits, and tell on stdout how it went, and how much memory it took."""
    given = json.load(sys.stdin)
    limits = Limits(**given.pop("cage"))
    confine(limits)
    answer: dict[str, Any] = {}
    try:
        answer["done"] = read(given)
    except Refusal as refusal:
        answer["refused"] = {"detail": refusal.detail, "hint": refusal.hint, "details": refusal.details}
    except MemoryError:
        detail = f"Reading it takes more than {limits.memory_bytes:,} bytes of memory."
        hint = "Make it again, by an ordinary program."
        answer["refused"] = {"detail": detail, "hint": hint, "details": {}}
    except DiskFull:
        answer["full"] = True
    except OSError as error:
        if error.errno not in FULL:
            raise
        answer["full"] = True
    json.dump(answer | {"peak_bytes": peak_bytes()}, sys.stdout)


def confine(limits: Limits) -> None:
    """From here on this process can take so much and no more: memory, computing, bytes of one file, nothing left of a crash."""
    for kind, most in (
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.seconds),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def peak_bytes() -> int:
    """The most memory that this process ever held; getrusage would count what its parent held, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def short(name: str) -> str:
    """A name as it can be shown: quoted where it is odd, and cut."""
    shown = name if name.isprintable() and name.strip() == name and name else ascii(name)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
