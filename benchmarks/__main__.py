"""python -m benchmarks [NAME...] [--quick] [--out FILE]: yardstick and engine in turn, A B A B, and what that says.

No benchmark asserts a time; the exit code is 1 where the two sides gave different numbers, or one could not be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.timing import Measured, Peaks, agree, compared
from benchmarks.workloads import FULL, Workload, chosen, on_gpu
from engine.launch import OPENMP, environment

ROUNDS = 2
SIDES = {  # the first is what the others are compared with
    "service": ("loop", "step", "worker"),
    "workers": ("one worker", "two workers"),
    "job": ("job",),
}
USUAL_SIDES = ("yardstick", "engine")
ROOT = Path(__file__).parents[1]


class Failed(Exception):
    """A side could not do what it was asked."""


class Side:
    """A `benchmarks.side` process."""

    def __init__(self, threads: int, base: dict[str, str]) -> None:
        self._threads = threads
        own = {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "benchmarks.side"]
        self._process = subprocess.Popen(
            words, env={**base, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises Failed."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"threads": self._threads, **request}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


class Bench:
    """The two processes, and a folder that both work in."""

    def __init__(self, threads: int, root: Path) -> None:
        # Waiting busily, as OpenMP does by default, would punish the yardstick wherever its cores are shared.
        self._plain = Side(threads, OPENMP | dict(os.environ))
        self._ours = Side(threads, environment(os.environ))
        self._root = root
        self.machine: dict[str, Any] = self._plain.ask(do="machine")

    def workload(self, workload: Workload, rounds: int) -> dict[str, Any]:
        """Check, then measure in turn. Raises Failed."""
        if self.machine["machine"]["device"] == "cuda":
            workload = on_gpu(workload)
        sides = SIDES.get(workload.kind, USUAL_SIDES)
        told = {"workload": workload.model_dump(), "root": str(self._root / workload.name)}
        found: dict[str, Any] = {"workload": workload.model_dump(), "unit": workload.unit}
        if sides == USUAL_SIDES:
            found["check"] = self._check(told)
        self._ours.ask(do="plant", **told)
        measured: dict[str, list[Measured]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side in sides:
                answer = self._process(side).ask(do="measure", side=side, **told)
                measured[side].append(Measured.model_validate(answer))
        found["sides"] = {side: [one.model_dump() for one in many] for side, many in measured.items()}
        return found | report.findings(measured, Peaks.model_validate(self.machine["peaks"]))

    def _check(self, told: dict[str, Any]) -> dict[str, Any]:
        given = {**told, "root": told["root"] + "-check", "checking": True}
        self._ours.ask(do="plant", **given)
        numbers = [self._process(side).ask(do="check", side=side, **given)["numbers"] for side in USUAL_SIDES]
        try:
            return compared(*numbers)
        except ValueError as error:
            raise Failed(f"the sides told unlike numbers: {error}") from error

    def _process(self, side: str) -> Side:
        return self._plain if side == "yardstick" else self._ours

    def close(self) -> None:
        self._plain.close()
        self._ours.close()


def main() -> int:
    options = _parser().parse_args()
    if options.list:
        print("\n".join(f"{workload.name:<16}{workload.kind}" for workload in FULL))
        return 0
    try:
        workloads = chosen(options.names, quick=options.quick)
    except KeyError as error:
        print(f"{error} is no benchmark: --list names them.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="fadrm-bench-", dir=options.scratch) as folder:
        bench = Bench(options.threads, Path(folder))
        try:
            well = _measure(bench, workloads, options)
        finally:
            bench.close()
    return 0 if well else 1


def _measure(bench: Bench, workloads: list[Workload], options: argparse.Namespace) -> bool:
    """Everything in turn, told and kept as it comes; whether all of it could be measured and agreed."""
    print(report.head(bench.machine), flush=True)
    results: dict[str, Any] = {}
    well = True
    for workload in workloads:
        if workload.kind == "service" and find_spec("sqlalchemy") is None:
            print(f"{workload.name}: left out, as the service is not installed here")
            continue
        try:
            results[workload.name] = found = bench.workload(workload, options.rounds)
            well = well and agree(found.get("check", {}))
            print(report.lines(workload.name, found), flush=True)
        except Failed as failed:
            results[workload.name] = {"error": str(failed)}
            well = False
            print(f"{workload.name}: {failed}", flush=True)
        if options.out:
            _keep(options, bench.machine, results)
    print(report.sums(results), flush=True)
    return well


def _keep(options: argparse.Namespace, machine: dict[str, Any], results: dict[str, Any]) -> None:
    """Write down what there is: whoever is cut off has that."""
    from benchmarks.machine import commit

    whole = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "quick": options.quick,
        "rounds": options.rounds,
        "threads": options.threads,
        "load_at_end": os.getloadavg(),
        **machine,
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(whole, indent=1) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="of benchmarks; all of them by default")
    parser.add_argument("--quick", action="store_true", help="small sizes: some three minutes on two quiet cores")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each side is measured")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="CPU threads of a side")
    parser.add_argument("--out", type=Path, help="write everything measured to this JSON file")
    parser.add_argument("--scratch", type=Path, help="folder for what is made up; by default the system's")
    parser.add_argument("--list", action="store_true", help="name the benchmarks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
