"""How an engine process is started and asked: for workers, which never import torch. Torch-free.

One process serves one request after another: a JSON line on its stdin, events as JSON lines from its stdout.

    Popen(command(threads=2), env=environment(os.environ, threads=2), stdin=PIPE, stdout=PIPE, start_new_session=True)

Start it from a thread that lives as long as it should: Linux kills it when that thread ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from engine.plan import Step

EXIT_FAILED = 3  # of `run`: the spec or the data must change
EXIT_DRAINED = 75  # EX_TEMPFAIL: asked to end, a checkpoint is left; try again later
TINY_PX = 16

# An allocator that keeps its memory: large tensors come and go each iteration, and giving their pages back to the
# system costs a quarter of the time on a CPU (measured: performance.md).
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
# Threads that wait asleep: where they share their cores with other work, waiting busily is five times slower (measured).
OPENMP = {"OMP_WAIT_POLICY": "passive"}
CUBLAS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # products by the same algorithm on every run


class Request(BaseModel, frozen=True, extra="forbid"):
    """One step to do. It is never published by the engine: `out` is left sealed for the caller to move."""

    step: Step
    store: Path  # root of the store
    out: Path  # an empty folder, on the same disk as the store
    attempt: int = 0  # fence: newer attempts have higher ones
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:0", ...
    checkpoint_s: float = 60.0  # between two checkpoints


def command(*, threads: int | None = None, parent: int | None = None) -> list[str]:
    """The argv of an engine process that serves. parent: the process without which it should not go on."""
    words = [sys.executable, "-m", "engine", "serve", "--parent", str(os.getpid() if parent is None else parent)]
    return words if threads is None else [*words, "--threads", str(threads)]


def usual_threads(resolution: int) -> int | None:
    """CPU threads that pay for images of that side: one for tiny ones, and as many as torch likes for others (None)."""
    return 1 if resolution <= TINY_PX else None


def adopt_environment() -> None:
    """Give this process the environment of an engine process, by starting it again in place: libraries read it once."""
    wanted = environment(os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "engine", *sys.argv[1:]], wanted)  # noqa: S606 - itself


def environment(base: Mapping[str, str], *, threads: int | None = None) -> dict[str, str]:
    """The environment of an engine process: the given one, and what makes torch fast and repeatable.

    What `base` sets already is left as it is. Secrets of the service are for the caller to leave out.
    """
    package_root = str(Path(__file__).resolve().parent.parent)
    paths = [package_root, *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    limits = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    own = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    return MALLOC | OPENMP | CUBLAS | limits | dict(base) | own
