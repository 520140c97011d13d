"""Processes that one process starts, keeps alive, and takes along when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from app import logs, tie

DEATHS, WINDOW_S = 5, 60.0  # so many ends of one process in so short a time: it will not come up by itself
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
LARGEST_LOG_BYTES = 10 * 2**20


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that is started again when it ends."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    inherits: Sequence[int] = ()  # numbers of open files that it gets too
    process: subprocess.Popen[bytes] | None = None
    next_start: float = 0.0
    _deaths: deque[float] = field(default_factory=lambda: deque(maxlen=DEATHS))

    def start(self) -> None:
        """Start it. In the main thread: Linux ends it together with the thread that did."""
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                tied(self.command),
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.inherits,
                start_new_session=True,  # Ctrl-C in the terminal is for the supervisor, which ends all in order
            )

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def has_died(self, now: float) -> None:
        """Note an end, and when to try again."""
        self._deaths.append(now)
        self.process = None
        recent = sum(now - at < WINDOW_S for at in self._deaths)
        self.next_start = now + min(FIRST_PAUSE_S * 2 ** (recent - 1), LONGEST_PAUSE_S)

    def is_hopeless(self, now: float) -> bool:
        """Whether it ended too often lately."""
        return len(self._deaths) == DEATHS and now - self._deaths[0] < WINDOW_S

    def ask_to_end(self) -> None:
        if self.process is not None and self.is_alive:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and end it by force after the deadline."""
        if self.process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self, lines: int = 15) -> str:
        """The end of its log, for people."""
        told = self.log.read_text(errors="replace").splitlines()[-lines:] if self.log.exists() else []
        return "\n".join(map(logs.readable, told))


def tied(command: Sequence[str]) -> list[str]:
    """The argv of a process that Linux ends together with this one."""
    return [sys.executable, "-I", "-S", str(Path(tie.__file__)), str(os.getpid()), *command]


def own_command(*words: str) -> list[str]:
    """The argv of this command line program with other words."""
    return [sys.executable, "-m", "app.cli", *words]
