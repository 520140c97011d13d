"""The engine process: started in a session of its own, listened to, told to end, and asked what it died of.

Linux kills the engine when the thread that started it ends (PR_SET_PDEATHSIG), so start it from the worker's main thread.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from pydantic import ValidationError

from app.machine import started
from engine.errors import ErrorReport
from engine.events import Event, Failed, Finished, Log, parse
from engine.launch import Request
from worker.pending import Pending

LAST_LINES = 200
LONGEST_LINE = 1 << 20  # bytes; a preview of thousands of tiles names each
LONGEST_MESSAGE = 2_000  # characters of one line of a log
MOST_LOG_LINES = 5_000  # of stderr, an attempt; later ones are only kept as last words
FIRST_FOR_THE_OOM_KILLER = "1000"
OOM_COUNTERS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
READERS_END_S, SILENT_S = 5.0, 1.0
log = logging.getLogger(__name__)


class EngineProcess:
    """One engine: a request at a time, its events, its end."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._oom_kills = oom_kills()
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd="/",  # nothing that lies about where the worker was started is imported in place of the engine
        )
        self.pid = self._process.pid
        self.started = started(self.pid) or 0.0
        self.pending = Pending()
        self.verdict: Finished | Failed | None = None
        self._changed = threading.Condition()
        self._ended_by_us = False
        self._heard = time.monotonic()
        self._silent_s = 0.0  # for how long it was silent when it was ended for that
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._num_lines = 0
        with suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text(FIRST_FOR_THE_OOM_KILLER)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            self._reader(self._read_events, self._process.stdout),
            self._reader(self._read_log, self._process.stderr),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def ask(self, request: Request) -> None:
        """Give it a step to do. When it is dead already, the caller finds that out by waiting."""
        self.verdict = None
        self._num_lines = 0
        self._heard = time.monotonic()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(request.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a verdict or the end; False when neither came in time."""
        with self._changed:
            self._changed.wait_for(lambda: self.verdict is not None or self._is_silent, timeout=max(0.0, timeout_s))
        if self.verdict is None and self._is_silent and not self.is_over:
            self._await_end(SILENT_S)  # it closed its output: it is on its way out, or out of its mind
        return self.verdict is not None or self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the process has ended. Its group is ended with it."""
        if self._process.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self._signal(signal.SIGKILL, ours=False)  # before its number is given back: nothing of its group survives
            self._bury()
        return self._process.returncode is not None

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative for a signal."""
        return self._process.returncode

    @property
    def ended_by_us(self) -> bool:
        """Whether this worker sent it a signal."""
        return self._ended_by_us

    def terminate(self, grace_s: float) -> None:
        """Ask it to end, leaving a checkpoint; end it when it does not."""
        if not self.is_over:
            self._signal(signal.SIGTERM)
        self._await_end(grace_s)

    def kill(self) -> None:
        """End it and all its children now."""
        while not self.is_over:
            self._signal(signal.SIGKILL)
            time.sleep(0.01)

    @property
    def silence_s(self) -> float:
        """How long nothing has come from it: no event, no line of its log."""
        return time.monotonic() - self._heard

    def end_for_silence(self) -> None:
        """End it now: it hangs, and what hangs heeds no signal."""
        self._silent_s = self.silence_s
        self.kill()

    def signal_end(self, number: signal.Signals) -> None:
        """Send a signal to the group, from any thread, and wait for nothing."""
        self._signal(number)

    def close(self, patience_s: float = 2.0) -> None:
        """It has nothing more to do: close its stdin, on which it ends."""
        self._close_stdin()
        self._await_end(patience_s)

    def obituary(self) -> ErrorReport:
        """What it died of, for the user: code, sentence, last words."""
        code = self._process.returncode or 0
        details = {"exit_code": code, "log": list(self._last_lines)}
        if code == -signal.SIGKILL and not self._ended_by_us and oom_kills() != self._oom_kills:
            return ErrorReport(
                code="host_out_of_memory",
                message="The engine was ended by the system, which ran out of memory.",
                hint="Choose smaller batches or a smaller network, or run fewer workers on that machine.",
                details=details,
            )
        if self._silent_s:
            return ErrorReport(
                code="engine_silent",
                message=f"The engine told nothing for {self._silent_s:.0f} s, and was ended.",
                hint="Trying again has been tried. If a step may be silent for so long, raise FADRM_SILENCE_S.",
                details=details,
            )
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = next((line for line in reversed(self._last_lines) if line.strip()), "")
        return ErrorReport(
            code="engine_crashed",
            message=f"The engine ended unexpectedly with {how}" + (f": {last[:500]}" if last else "."),
            hint="Its last lines are in the details. Trying again has been tried; report this with them.",
            details=details,
        )

    @property
    def _is_silent(self) -> bool:
        """Whether it closed its output, which it does when it ends."""
        return not self._readers[0].is_alive()

    def _await_end(self, patience_s: float) -> None:
        """Give it so long to end by itself."""
        deadline = time.monotonic() + patience_s
        while not self.is_over and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()

    def _signal(self, number: signal.Signals, *, ours: bool = True) -> None:
        self._ended_by_us = self._ended_by_us or ours
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _bury(self) -> None:
        self._process.wait()
        self._close_stdin()
        for reader in self._readers:
            reader.join(READERS_END_S)

    def _close_stdin(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _reader(self, read: object, stream: IO[bytes]) -> threading.Thread:
        assert callable(read)
        thread = threading.Thread(target=read, args=(stream,), name=f"engine-{self.pid}", daemon=True)
        thread.start()
        return thread

    def _read_events(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(LONGEST_LINE):
                self._hear(line)
        with self._changed:
            self._changed.notify_all()

    def _hear(self, line: bytes) -> None:
        self._heard = time.monotonic()
        try:
            event: Event = parse(line)
        except ValidationError:
            event = Log(message=printable(line))
        if not isinstance(event, Finished | Failed):
            self.pending.add(event)
            return
        with self._changed:
            self.verdict = event
            self._changed.notify_all()

    def _read_log(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(LONGEST_LINE):
                text = printable(line)
                self._heard = time.monotonic()
                if not text:
                    continue
                self._last_lines.append(text)
                self._num_lines += 1
                if self._num_lines < MOST_LOG_LINES:
                    self.pending.add(Log(message=text))
                elif self._num_lines == MOST_LOG_LINES:
                    self.pending.add(Log(message="(the log of this step ends here: it is too long)", level="warning"))


def printable(line: bytes) -> str:
    """A line as text without control characters, which no database and no terminal should be given."""
    text = line.decode("utf-8", errors="replace")[:LONGEST_MESSAGE].rstrip().replace("\t", " ")
    return "".join(character if character.isprintable() else "�" for character in text)


def oom_kills() -> int:
    """How many processes this machine, or this container, has ended for want of memory."""
    total = 0
    for path in OOM_COUNTERS:
        with suppress(OSError):
            words = path.read_text().split()
            total += sum(int(value) for name, value in zip(words[::2], words[1::2], strict=False) if name == "oom_kill")
    return total


class Fuse:
    """Ends the engine when nobody has renewed it for too long: its lease may be somebody else's by then.

    It watches from a thread of its own, as a call to a frozen database may not come back.
    """

    def __init__(self, engine: EngineProcess, *, limit_s: float, grace_s: float) -> None:
        self.blown = False
        self._engine, self._limit_s, self._grace_s = engine, limit_s, grace_s
        self._renewed = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fuse", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def renew(self, at: float) -> None:
        """The lease was renewed by a transaction that began at this monotonic time."""
        self._renewed = at

    def _watch(self) -> None:
        while (left := self._renewed + self._limit_s - time.monotonic()) > 0:
            if self._closed.wait(left):
                return
        self.blown = True
        log.error("lease not renewed: engine ended", extra={"pid": self._engine.pid, "limit_s": self._limit_s})
        self._engine.signal_end(signal.SIGTERM)
        if not self._closed.wait(self._grace_s):
            self._engine.signal_end(signal.SIGKILL)
