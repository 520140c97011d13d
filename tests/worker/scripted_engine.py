"""An engine that does what its step's params say: a real process that speaks the protocol, and dies on demand.

params: units, pause_s, checkpoint_every, preview_at, lines, faults: [{"attempt": 1, "at": 5, "do": "segfault"}, ...]
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from engine.errors import DiskFull, ErrorReport, OutOfMemory
from engine.events import Checkpointed, Failed, Finished, Log, Metric, Preview, Progress, Started
from engine.store import write_atomically, write_manifest

FAILURES = {
    "fail": ErrorReport(code="nan_loss", message="diverged", hint="lower the rate"),
    "starve": OutOfMemory("cuda:0 has too little memory.").report,
    "full": DiskFull("No space is left on the disk.").report,
}
PNG = bytes.fromhex("89504e470d0a1a0a") + b"a picture"


class Drain:
    """Whether it was asked to end."""

    asked = False
    waiting = True

    def on_term(self, *_: object) -> None:
        self.asked = True
        if self.waiting:
            raise SystemExit(75)


drain = Drain()


def tell(event: Any) -> None:
    sys.stdout.write(event.model_dump_json() + "\n")
    sys.stdout.flush()


def die(how: str) -> None:
    match how:
        case "segfault":
            sys.stderr.write("about to fall\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGSEGV)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            sys.exit(9)
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case "garbage":
            sys.stdout.write('{"type": "metric", "x": NaN}\n\x00\x07 not json\n[]\n')
            sys.stdout.flush()
        case "flood":
            for x in range(20_000):
                tell(Metric(x=x, values={"flood": float(x)}))
        case "close_stdout":
            os.close(1)
            time.sleep(600)
        case "bad_numbers":
            tell(Metric(x=2**80, values={"loss": 1.0}))
        case "mute":
            time.sleep(600)


def do(request: dict[str, Any]) -> None:
    step, attempt, out = request["step"], request["attempt"], Path(request["out"])
    params: dict[str, Any] = {
        "units": 5,
        "pause_s": 0.01,
        "checkpoint_every": 0,
        "preview_at": -1,
        "lines": 0,
        "faults": [],
    }
    params |= step["params"]
    kept = Path(request["store"]) / "work" / step["key"] / "checkpoints" / "done"
    note(request, "begin")
    done = int(kept.read_text()) if kept.is_file() else 0
    tell(Started(total=params["units"], unit="units", resumed_at=done))
    while done < params["units"]:
        for fault in params["faults"]:
            if fault["attempt"] == attempt and fault["at"] == done:
                if fault["do"] in FAILURES:
                    tell(Failed(error=FAILURES[fault["do"]]))
                    return
                die(fault["do"])
        time.sleep(params["pause_s"])
        done += 1
        tell(Progress(done=done, total=params["units"], unit="units"))
        tell(Metric(x=done, values={"loss": 1.0 / done}))
        if done == params["preview_at"]:
            (out / "p.png").write_bytes(PNG)
            tell(Preview(x=done, total=9, file="p.png", columns=1, tile=8, labels=[0], names=["0"]))
            tell(Preview(x=done, total=9, file="../../../../etc/passwd", columns=1, tile=8, labels=[0], names=["0"]))
        for line in range(params["lines"]):
            tell(Log(message=f"line {line}"))
        every = params["checkpoint_every"]
        if drain.asked or (every and done % every == 0):
            write_atomically(kept, str(done).encode())
            tell(Checkpointed(done=done))
        if drain.asked:
            sys.exit(75)
    finish(request, out)


def finish(request: dict[str, Any], out: Path) -> None:
    step = request["step"]
    if not step["params"].get("unsealed"):
        (out / "out.txt").write_text(step["key"])
        write_manifest(
            out,
            key=step["key"],
            kind=step["kind"],
            params=step["params"],
            needs=step["needs"],
            result={"answer": 42},
            environment={"pid": str(os.getpid()), "threads": os.environ.get("OMP_NUM_THREADS", "")},
            seconds=0.5,
        )
    note(request, "end")
    tell(Finished(result={"answer": 42}, seconds=0.5))


def note(request: dict[str, Any], what: str) -> None:
    """For the test to read: who began and ended what."""
    line = {"what": what, "key": request["step"]["key"], "pid": os.getpid(), "attempt": request["attempt"]}
    with (Path(request["store"]) / "ran.jsonl").open("a") as file:
        file.write(json.dumps(line | {"environment": dict(os.environ), "device": request["device"]}) + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, drain.on_term)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() == 1:
        sys.exit(0)
    while line := sys.stdin.readline():
        drain.waiting = False
        try:
            do(json.loads(line))
        except OSError as error:  # as the real engine does
            if error.errno != errno.ENOSPC:
                raise
            tell(Failed(error=FAILURES["full"]))
        drain.waiting = True
        if drain.asked:
            sys.exit(75)
