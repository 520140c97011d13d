"""python -m benchmarks.scale [FILE...]: what a job takes on so many workers, from measured figures, on paper. Torch-free.

Steps are those of the real plan. A free worker takes the first step that is ready; it reads what the step needs, computes,
and writes. Rates of a CPU come from result files of `python -m benchmarks`; those of a GPU from the paper, or from what is
aimed at. Not in the model: workers that die, and links that others share.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from engine.plan import Plan, Step, StepKind, plan
from engine.presets import PRESETS
from engine.presets.paper import COLLECTIONS

MEASURED_BY = {  # benchmark -> kinds whose rate it tells
    "recover32": (StepKind.RECOVER,),
    "labels32": (StepKind.RELABEL, StepKind.SELECT, StepKind.OBSERVE),
    "student32": (StepKind.EVALUATE, StepKind.CONTINUAL),
    "teach32": (StepKind.TEACH,),
}
TEST_SHARE = 0.04  # of the real images (ImageNet-1K): about what testing looks at
LOOKS_AT = {  # share of the real images; a teacher that is trained sees all of them
    StepKind.SELECT: 1.0,
    StepKind.OBSERVE: 1.0,
    StepKind.TEACH: TEST_SHARE,
    StepKind.EVALUATE: TEST_SHARE,
    StepKind.CONTINUAL: TEST_SHARE,
}
STEP_S = 2.0  # that each step costs beside reading, computing and writing: `app.estimates`
HEARTBEAT_S = 1.0  # between two writes of a worker that is busy: `app.settings`
WRITES_A_STEP = 3  # claimed, done, what is unblocked by it
STORAGE_BYTES_PER_S = 1.2e9  # of a shared disk behind 10 Gbit/s, for all workers together
STRAGGLER = 0.5  # speed of the one slow worker
PAPER_GPU = 13.1e12 / 0.47  # FLOP/s: a 4090 recovers a 224 px image in 0.47 s (arXiv 2506.24125), of 13.1 TFLOP
AIM_GPU = 13.1e12 / 0.05  # what issue 4 asks of an H200


class Rates(BaseModel, frozen=True, extra="forbid"):
    """What one worker does in a second."""

    title: str
    flop_per_s: dict[StepKind, float]
    read_images_per_s: float


class Course(NamedTuple):
    """How a job went."""

    seconds: float
    busy_share: float  # of the workers' time
    waited_s: float  # while some worker was free and no step was ready: the graph is too narrow
    bytes_per_s: float  # read and written, mean over the whole job
    writes_per_s: float  # to the database, mean


def simulated(job: Plan, rates: Rates, speeds: Sequence[float]) -> Course:
    """One job, alone, on workers of these relative speeds."""
    waiting = {step.key: set(step.needs.values()) for step in job.steps}
    order = {step.key: place for place, step in enumerate(job.steps)}
    known = {step.key: step for step in job.steps}
    free = sorted(range(len(speeds)), key=lambda worker: -speeds[worker])
    ready = sorted((key for key, needs in waiting.items() if not needs), key=order.__getitem__)
    running: list[tuple[float, int, str]] = []  # end, worker, step
    now = busy_s = narrow_s = moved = 0.0
    while ready or running:
        while ready and free:
            step, worker = known[ready.pop(0)], free.pop(0)
            taken = seconds_of(step, rates, known, speeds[worker])
            moved += moved_bytes(step, known)
            busy_s += taken
            heapq.heappush(running, (now + taken, worker, step.key))
        end, worker, done = heapq.heappop(running)
        narrow_s += (end - now) if free and not ready else 0.0
        now = end
        free = sorted([*free, worker], key=lambda worker: -speeds[worker])
        for key, needs in waiting.items():
            if done in needs:
                needs.remove(done)
                if not needs:
                    ready = sorted([*ready, key], key=order.__getitem__)
    writes = len(speeds) / HEARTBEAT_S + WRITES_A_STEP * len(job.steps) / now
    return Course(now, busy_s / now / len(speeds), narrow_s, moved / now, writes)


def seconds_of(step: Step, rates: Rates, known: Mapping[str, Step], speed: float = 1.0) -> float:
    """What a worker takes for a step, if it has the storage for itself."""
    if step.kind == StepKind.PREPARE:
        side = int(step.params["resolution"])
        computing = step.size_bytes / (3 * side**2) / rates.read_images_per_s
    else:
        computing = step.flop / rates.flop_per_s[step.kind] if step.flop else 0.0
    return STEP_S + moved_bytes(step, known) / STORAGE_BYTES_PER_S + computing / speed


def moved_bytes(step: Step, known: Mapping[str, Step]) -> float:
    """What a step writes, and what it reads of the steps that it needs: of the real images only what it looks at."""
    needs = [known[key] for key in step.needs.values()]
    read = sum(need.size_bytes for need in needs if need.kind != StepKind.PREPARE)
    images = sum(need.size_bytes for need in needs if need.kind == StepKind.PREPARE)
    trains = step.kind == StepKind.TEACH and step.flop > 0
    return step.size_bytes + read + images * (1.0 if trains else LOOKS_AT.get(step.kind, 0.0))


def longest_chain_s(job: Plan, rates: Rates) -> float:
    """What the job takes on workers without number."""
    known, ends = {step.key: step for step in job.steps}, dict[str, float]()
    for step in job.steps:
        before = max((ends[key] for key in step.needs.values()), default=0.0)
        ends[step.key] = before + seconds_of(step, rates, known)
    return max(ends.values())


def measured(files: Iterable[Path]) -> Rates:
    """A worker as the engine's side of these result files was. Raises KeyError when a benchmark is missing."""
    results: dict[str, dict[str, object]] = {}
    title = ""
    for file in files:
        whole = json.loads(file.read_bytes())
        results |= whole["results"]
        title = f"{whole['machine']['cpu']}, {whole['threads']} thread" + "s" * (whole["threads"] > 1)
    of = {name: _engine(results[name]) for name in (*MEASURED_BY, "read")}
    flops = {kind: of[name][0] / of[name][1] for name, kinds in MEASURED_BY.items() for kind in kinds}
    return Rates(title=title, flop_per_s=flops, read_images_per_s=1 / of["read"][1])


def _engine(found: Mapping[str, object]) -> tuple[float, float]:
    """Operations and seconds of a unit."""
    sides, summary = found["sides"], found["summary"]
    assert isinstance(sides, dict) and isinstance(summary, dict)
    return float(sides["engine"][0]["flop"]), float(summary["engine"]["unit_s"])


def on_paper(title: str, flop_per_s: float) -> Rates:
    """A worker that does everything at one rate."""
    return Rates(title=title, flop_per_s=dict.fromkeys(StepKind, flop_per_s), read_images_per_s=2000.0)


def sql_writes_per_s(seconds: float = 1.0) -> float:
    """Transactions of two rows that SQLite commits here, each safe on the disk."""
    with tempfile.TemporaryDirectory() as folder:
        database = sqlite3.connect(Path(folder) / "scale.db", isolation_level=None)
        database.executescript(
            "pragma journal_mode=wal; pragma synchronous=full;"
            "create table lease (worker integer primary key, until real); create table event (told text);"
        )
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            database.execute("begin immediate")
            database.execute("replace into lease values (?, ?)", (count % 64, time.time()))
            database.execute("insert into event values (?)", ("progress " * 20,))
            database.execute("commit")
            count += 1
        rate = count / (time.perf_counter() - began)
        database.close()
    return rate


def planned(preset: str, collection: str) -> Plan:
    """The steps of one of the paper's jobs."""
    facts = next(known.facts for known in COLLECTIONS if known.name == collection)
    return plan(PRESETS[preset].spec, facts)


def table(title: str, job: Plan, rates: Rates, counts: Sequence[int]) -> str:
    """Lines of Markdown: the job on so many workers."""
    kinds = {kind: [step for step in job.steps if step.kind == kind] for kind in StepKind}
    parts = ", ".join(f"{len(steps)} {kind}" for kind, steps in kinds.items() if steps)
    lines = [
        f"{title}: {parts}; {rates.title}. Longest chain {_readable(longest_chain_s(job, rates))}.",
        "",
        "| workers | time | times as fast | busy | some free, nothing ready | storage, MB/s | SQL, writes/s | one at half speed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    alone = simulated(job, rates, [1.0]).seconds
    for count in counts:
        course, slow = (simulated(job, rates, [1.0] * (count - 1) + [last]) for last in (1.0, STRAGGLER))
        lines.append(
            f"| {count} | {_readable(course.seconds)} | {alone / course.seconds:.1f} | {100 * course.busy_share:.0f} % "
            f"| {100 * course.waited_s / course.seconds:.0f} % | {course.bytes_per_s / 1e6:.1f} "
            f"| {course.writes_per_s:.1f} | +{100 * (slow.seconds / course.seconds - 1):.0f} % |"
        )
    return "\n".join(lines) + "\n"


def _readable(seconds: float) -> str:
    hours, minutes = seconds / 3600, seconds / 60
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="results of `python -m benchmarks`, for a CPU's rates")
    files = parser.parse_args().files
    if files:
        cifar = planned("cifar100-ipc10-fadrm-paper", "cifar100")
        print(table("CIFAR-100, 10 images a class", cifar, measured(files), (1, 2, 8)))
    imagenet = planned("imagenet-1k-ipc50-fadrm-paper", "imagenet-1k")
    for title, rate in (("the authors' rate on a 4090", PAPER_GPU), ("what is aimed at on an H200", AIM_GPU)):
        told = table("ImageNet-1K, 50 images a class", imagenet, on_paper(title, rate), (1, 8, 64))
        print(told)
    print(f"SQLite here: {sql_writes_per_s():.0f} such transactions a second.")


if __name__ == "__main__":
    main()
