"""Run a suite on a server, in pieces: what is done stays done, and what a piece does not finish is paused with a checkpoint."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.results.suites import Run, Suite
from fadrm import Client
from fadrm.errors import Refused
from fadrm.models import Cell

LOOK_S = 2.0  # between two looks
GRACE_S = 300.0  # for steps to leave their checkpoints
CONFLICT = 409  # a job is no longer in the state that it was seen in
AT_REST = frozenset({"succeeded", "failed", "cancelled", "paused"})
Told = Callable[[str], object]
Clock = Callable[[], float]


class Server(Client):
    """A client that reads any path of the API."""

    def read(self, path: str) -> Any:
        """An answer as JSON. path: behind `/api/v1`."""
        return self._get(path)

    def picture(self, sha256: str) -> bytes:
        """A contact sheet, PNG."""
        return self._bytes(f"/previews/{sha256}")


def key_of(body: Mapping[str, Any]) -> str:
    """The same request has the same key, so that it is one sweep however often it is sent."""
    return f"results-{body['name']}-{hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]}"


def run(
    client: Client,
    suite: Suite,
    data: Path,
    *,
    minutes: float | None,
    told: Told,
    clock: Clock = time.monotonic,
    look_s: float = LOOK_S,
) -> bool:
    """Post a suite's sweeps, or find them, and wait; whether all jobs have succeeded.

    Paused jobs go on, failed and cancelled ones are tried again. After so many minutes what is left is paused.
    """
    began = clock()
    sweeps = [_begun(client, one, data, told) for one in suite.runs]
    last = ""
    while True:
        cells = _cells(client, sweeps)
        counts = Counter(cell.state for cell in cells)
        if (now := _words(counts)) != last:
            told(now)
            last = now
        if counts.keys() <= AT_REST:
            return set(counts) == {"succeeded"}
        if minutes is not None and clock() - began >= 60 * minutes:
            _pause(client, sweeps, told, clock, look_s)
            return False
        time.sleep(look_s)


def _begun(client: Client, run: Run, data: Path, told: Told) -> str:
    """Id of the sweep, all of whose jobs are on their way."""
    body = run.body(data)
    sweep = client.submit_sweep(body, key=key_of(body))
    told(f"{run.name}: {client.url}{sweep.urls['web']}")
    for cell in sweep.cells:
        with _whatever_happened():
            if cell.state == "paused":
                client.resume(cell.job_id)
            elif cell.state in {"failed", "cancelled"}:
                client.retry(cell.job_id)
    return sweep.id


def _cells(client: Client, sweeps: Sequence[str]) -> list[Cell]:
    return [cell for sweep_id in sweeps for cell in client.sweep(sweep_id).cells]


def _pause(client: Client, sweeps: Sequence[str], told: Told, clock: Clock, look_s: float) -> None:
    told("Time is up: pausing what is left, which leaves its checkpoints.")
    for cell in _cells(client, sweeps):
        if cell.state not in AT_REST:
            with _whatever_happened():
                client.pause(cell.job_id)
    until = clock() + GRACE_S
    while any(cell.state not in AT_REST for cell in _cells(client, sweeps)):
        if clock() > until:
            told(f"Some steps still run after {GRACE_S / 60:.0f} minutes; they rest at their next checkpoint.")
            return
        time.sleep(look_s)
    told("All rests. The same command goes on.")


@contextmanager
def _whatever_happened() -> Iterator[None]:
    """A job that is no longer as it was seen needs nothing."""
    try:
        yield
    except Refused as error:
        if error.problem.status != CONFLICT:
            raise


def _words(counts: Mapping[str, int]) -> str:
    """`12 jobs: 3 succeeded, 1 running, 8 queued`."""
    return f"{sum(counts.values())} jobs: {', '.join(f'{count} {state}' for state, count in _ordered(counts))}"


def _ordered(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for state in ("succeeded", "failed", "cancelled", "paused", "running", "queued"):
        if state in counts:
            yield state, counts[state]
