"""What is measured as a whole, without a yardstick inside: the service around a step, workers side by side, a whole job.

Each returns a measurement; the sides of a workload are named in `SIDES`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Barrier

import torch

from benchmarks.ours import events, fresh
from benchmarks.planted import needed, recipe_of, steps_of, store_of
from benchmarks.task import Task
from benchmarks.timing import Measured
from engine import device as devices
from engine.data import chunks, images_of, real_data, teachers
from engine.events import Finished, Progress
from engine.fused import fused
from engine.pixels import normalised
from engine.plan import Plan, Step
from engine.plan.memory import blocks_together
from engine.presets import PRESETS
from engine.recovery import Recovery
from engine.store import Store

START_S = 120.0  # for workers to be warm


def _per_iteration(task: Task, seconds: float) -> Measured:
    """The seconds of a whole step."""
    units = task.workload.steps * task.workload.classes * task.workload.ipc
    return Measured(seconds=[seconds / units], first_s=seconds)


def recoveries(task: Task, *, together: bool = False) -> Iterator[Recovery]:
    """What the loop alone is of: each block by itself, or as many of them as a step takes at once."""
    step, store, recipe = steps_of(task)[0], store_of(task), recipe_of(task)
    data, precision = real_data(store.step(step.needs["data"])), devices.resolve("auto", task.device)
    folders = [store.step(key) for role, key in step.needs.items() if "teacher" in role]
    networks = [fused(model) for model in teachers(folders, task.device, precision)]
    blocks = list(images_of([store.step(step.needs["patches"])]))
    workload = task.workload
    most = blocks_together(workload.networks, side=workload.resolution, block=workload.classes) if together else 1
    for start, stop in chunks(len(blocks), most):
        seen = blocks[start:stop]
        yield Recovery(
            teachers=networks,
            patches=normalised(torch.cat(seen).to(task.device), data.statistics),
            labels=torch.arange(len(seen[0])).repeat(len(seen)).to(task.device),
            recipe=recipe,
            statistics=data.statistics,
            seed=0,
            places=[("recover", ipc, 0) for ipc in range(start, stop)],
            precision=precision,
        )


def loop(task: Task) -> Measured:
    """The loop alone: nothing shown, nothing kept, the losses read as seldom as the step reads them."""
    began = time.perf_counter()
    for recovery in recoveries(task):
        for _ in recovery.run(every=max(1, recovery.recipe.steps // 100)):
            pass
    task.settle()
    return _per_iteration(task, time.perf_counter() - began)


def step_alone(task: Task) -> Measured:
    """The step as `python -m engine run` does it: previews, events, checkpoints when due."""
    step = steps_of(task)[0]
    for event in events(task, step, fresh(task, step)):
        if isinstance(event, Finished):
            return _per_iteration(task, event.seconds)
    raise RuntimeError("the step did not finish")


def under_worker(task: Task) -> Measured:
    """The same step by the worker's own loop: a database, a lease renewed each second, an engine process of its own."""
    from app import jobs, machine
    from app.bell import Bell
    from app.claims import Holder
    from app.db import Base, Database
    from app.models import User
    from app.services import Services
    from app.settings import Settings
    from engine.spec import JobSpec
    from worker.engines import Engines
    from worker.execute import Carrier

    home = task.root / f"home-{os.getpid()}"
    home.mkdir()
    settings = Settings(home=home, database_url=f"sqlite:///{home / 'fadrm.db'}", store=store_of(task).root)
    database = Database(settings.database)
    Base.metadata.create_all(database.engine)
    services = Services(
        settings=settings, database=database, store=Store(settings.store_root), bell=Bell(settings.redis_url)
    )
    measured = steps_of(task)[0]
    fresh(task, measured)
    plan = Plan(steps=(*needed(task), measured), rows=(), package=measured.key)
    with database.write() as session:
        session.add(User(id="usr_1", name="bench", role="member"))
        session.flush()
        jobs.create(session, owner=session.get_one(User, "usr_1"), name="bench", spec=JobSpec(), plan=plan)
    device = "cuda:0" if task.device.type == "cuda" else "cpu"
    carrier = Carrier(
        services=services,
        holder=Holder(worker=f"{machine.hostname()}:{device}:0", host=machine.hostname(), device=device),
        engines=Engines(device=device, threads=torch.get_num_threads()),
    )
    carrier.drain()
    services.close()
    return _taken(task, measured)


def _taken(task: Task, step: Step) -> Measured:
    """What the manifest says of a published step, which is then forgotten."""
    store = store_of(task)
    seconds = store.manifest(step.key).seconds
    shutil.rmtree(store.step(step.key))
    return _per_iteration(task, seconds)


def one_worker(task: Task) -> Measured:
    """All shards by one process on one core."""
    return _share(task, 1)


def two_workers(task: Task) -> Measured:
    """The same shards by two processes, each on a core of its own."""
    return _share(task, 2)


def _share(task: Task, workers: int) -> Measured:
    cores, steps = sorted(os.sched_getaffinity(0)), steps_of(task)
    if len(cores) < workers:
        raise RuntimeError(f"{workers} workers want a core each, and there are {len(cores)}")
    processes = multiprocessing.get_context("fork")
    ready = processes.Barrier(workers + 1)
    children = [
        processes.Process(target=_carry, args=(task, cores[worker], steps[worker::workers], ready))
        for worker in range(workers)
    ]
    for child in children:
        child.start()
    ready.wait(START_S)
    began = time.perf_counter()
    for child in children:
        child.join()
    seconds = time.perf_counter() - began
    if any(child.exitcode for child in children):
        raise RuntimeError(f"workers ended with {[child.exitcode for child in children]}")
    return _per_iteration(task, seconds)


def _carry(task: Task, core: int, mine: Sequence[Step], ready: Barrier) -> None:
    """A worker's life, in a process of its own: warm before the clock starts, then its shards."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    for event in events(task, mine[0], fresh(task, mine[0])):
        if isinstance(event, Progress):
            break
    ready.wait(START_S)
    for step in mine:
        list(events(task, step, fresh(task, step)))


def whole_job(task: Task) -> Measured:
    """The demo's job by `python -m engine run`, from nothing; parts_s: seconds of each kind of step."""
    out = task.root / f"job-{os.getpid()}"
    out.mkdir(parents=True)
    spec = PRESETS["demo"].spec
    if task.workload.epochs < 12:  # the small size
        few = {"labels": spec.labels.model_copy(update={"epochs": 10}), "ipc": 2}
        spec = spec.model_copy(update=few)
    (out / "spec.json").write_text(json.dumps(spec.model_dump(mode="json")))
    began = time.perf_counter()
    words = [sys.executable, "-m", "engine", "run", str(out / "spec.json"), "--out", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-1000:])
    seconds = time.perf_counter() - began
    return Measured(seconds=[seconds], first_s=seconds, parts_s=_parts(Store(out / "store")))


def _parts(store: Store) -> dict[str, float]:
    parts: dict[str, float] = {}
    for folder in (store.root / "steps").iterdir():
        manifest = store.manifest(folder.name)
        parts[manifest.kind] = parts.get(manifest.kind, 0.0) + manifest.seconds
    return {kind: round(seconds, 2) for kind, seconds in sorted(parts.items())}


Side = Callable[[Task], Measured]
WHOLE: dict[str, Side] = {
    "loop": loop,
    "step": step_alone,
    "worker": under_worker,
    "one worker": one_worker,
    "two workers": two_workers,
    "job": whole_job,
}
