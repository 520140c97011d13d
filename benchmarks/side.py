"""A process that has torch loaded and measures in children of its own: each measurement begins in a fresh one.

Requests on stdin, answers on stdout, JSON lines. Two of these run beside each other: one in the environment that people
have, one in that of the engine's processes (its allocator's settings are read once, as a process starts).
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from benchmarks import counting, machine, ours, planted, timing
from benchmarks.plain import PLAIN
from benchmarks.task import Task
from benchmarks.timing import Measured
from benchmarks.whole import WHOLE
from benchmarks.workloads import Workload
from engine import device as devices
from engine.serve import private_stdout

Answer = dict[str, Any]


def serve() -> None:
    """One child a request, until stdin ends."""
    told = private_stdout()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                told.write(json.dumps(_answer(json.loads(line))) + "\n")
                told.flush()
                code = 0
            except BaseException as error:  # noqa: BLE001 - whatever it was is told, and the next request is another child's
                traceback.print_exc()
                told.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}) + "\n")
                told.flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code < 0:  # killed before it could say so
            told.write(json.dumps({"error": f"ended by signal {-code}"}) + "\n")
            told.flush()


def _answer(request: Answer) -> Answer:
    device = devices.pick("auto")
    torch.set_num_threads(request["threads"])
    if request["do"] == "machine":
        return {"machine": machine.facts(device), "peaks": machine.peaks(device).model_dump()}
    task = _task(request, device)
    torch.set_num_threads(task.workload.threads or request["threads"])
    match request["do"]:
        case "plant":
            if task.workload.kind != "job":
                planted.steps_of(task)
            return {}
        case "check":
            list(_side(task, request["side"]))
            return {"numbers": task.numbers}
        case _:
            return _measured(task, request["side"]).model_dump()


def _task(request: Answer, device: torch.device) -> Task:
    workload = Workload.model_validate(request["workload"])
    checking = request.get("checking", False)
    return Task(
        workload=workload.checked if checking else workload,
        root=Path(request["root"]),
        device=device,
        checking=checking,
    )


def _side(task: Task, side: str) -> Any:
    if side != "yardstick" or task.checking:  # to be compared, neither may round as TF32 does
        devices.configure(task.device)
    return PLAIN[task.workload.kind](task) if side == "yardstick" else ours.engine(task)


def _measured(task: Task, side: str) -> Measured:
    workload = task.workload
    precision = devices.resolve("auto", task.device)
    if side == "yardstick":
        half = task.device.type == "cuda" and workload.kind in ("recover", "teach")
        precision = "fp16" if half else "fp32"
    if side in WHOLE:
        devices.configure(task.device)
        found = WHOLE[side](task)
    else:
        turns = len(workload.networks) if workload.kind == "recover" else 1  # teachers are asked one after another
        seconds, first_s = timing.timed(_side(task, side), enough_s=workload.enough_s, settle=task.settle, stride=turns)
        found = Measured(seconds=seconds, first_s=first_s)
    flop, values = counting.counted(workload)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss if side in WHOLE else 0
    return found.model_copy(
        update={
            "precision": precision,
            "host_bytes": 1024 * max(children, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss),
            "device_bytes": torch.cuda.max_memory_reserved(task.device) if task.device.type == "cuda" else 0,
            "flop": flop,
            "map_values": values,
        }
    )


if __name__ == "__main__":
    serve()
