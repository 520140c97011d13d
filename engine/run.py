"""Do one step, or a whole job, and tell of it as events. Nothing here knows of the service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from pydantic import BaseModel

from engine import device as devices
from engine.checkpoint import Checkpoints
from engine.context import Context
from engine.data import forget_all_but
from engine.errors import FULL, DiskFull, EngineError, ErrorReport
from engine.events import Event, Failed, Finished
from engine.plan import Plan, Step
from engine.steps import PARAMS, STEPS
from engine.store import Store, write_manifest


def never() -> bool:
    """Nobody asks this process to end."""
    return False


def perform(
    step: Step,
    store: Store,
    *,
    out: Path,
    attempt: int = 0,
    device: torch.device,
    stop: Callable[[], bool] = never,
    checkpoint_s: float = 60.0,
) -> Iterator[Event]:
    """Do one step into the empty folder `out`, and seal it. The last event is Finished or Failed.

    The caller publishes. Raises Drained when `stop` turned true and a checkpoint is left; what is nobody's mistake but
    the engine's is raised as it is.
    """
    started = time.monotonic()
    try:
        context = _context(step, store, out, attempt, device, stop, checkpoint_s)
        forget_all_but(context.needs.values())
        devices.give_back(device)
        result = yield from STEPS[step.kind](context)
        seconds = time.monotonic() - started
        write_manifest(
            out,
            key=step.key,
            kind=step.kind,
            params=step.params,
            needs=step.needs,
            result=result,
            environment=devices.environment(device),
            seconds=seconds,
        )
    except Exception as error:
        report = report_of(error, device)
        if report is None:
            raise
    else:
        yield Finished(result=result, seconds=seconds)
        return
    devices.give_back(device)  # here: while there is an error, all that stood where it was raised is held
    yield Failed(error=report)


def run(
    planned: Plan,
    store: Store,
    *,
    device: torch.device,
    stop: Callable[[], bool] = never,
    checkpoint_s: float = 60.0,
) -> Iterator[tuple[Step, Event]]:
    """A whole job, step after step; those that the store holds already are passed over. Ends early after a Failed."""
    for step in planned.steps:
        if store.is_whole(step.key):
            continue
        out = store.attempt(step.key, 0)
        for event in perform(step, store, out=out, device=device, stop=stop, checkpoint_s=checkpoint_s):
            if isinstance(event, Finished):
                store.publish(step.key, out)
                store.forget_work(step.key)
            yield step, event
            if isinstance(event, Failed):
                return


def report_of(error: Exception, device: torch.device) -> ErrorReport | None:
    """What there is to say of an error that a user can answer; None for all others."""
    if isinstance(error, EngineError):
        return error.report
    if devices.is_out_of_memory(error, device):
        return devices.out_of_memory(error, device).report
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull(f"No space is left on the disk: {error.filename or error.strerror}.").report
    return None


def _context(
    step: Step,
    store: Store,
    out: Path,
    attempt: int,
    device: torch.device,
    stop: Callable[[], bool],
    checkpoint_s: float,
) -> Context[BaseModel]:
    return Context(
        key=step.key,
        params=PARAMS[step.kind].model_validate(step.params),
        needs={role: store.step(key) for role, key in step.needs.items()},
        out=out,
        checkpoints=Checkpoints(folder=store.checkpoints(step.key), attempt=attempt, every_s=checkpoint_s),
        device=device,
        stop=stop,
        downloads=store.root / "downloads",
        uploads=store.uploads,
    )
