"""The engine process as workers see it: lines in, lines out, exit codes, and death at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.events import Checkpointed, Event, Failed, Finished, parse
from engine.launch import EXIT_DRAINED, Request, command, environment
from engine.plan import Step, StepKind
from tests.engine.jobs import SPEC, Job, attempt, contents

pytestmark = pytest.mark.slow


@contextmanager
def _engine() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(threads=1),
        env=environment(os.environ, threads=1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        process.wait()


def _ask(
    process: subprocess.Popen[str],
    job: Job,
    step: Step,
    number: int = 1,
    *,
    checkpoint_s: float = 60,
    device: str = "cpu",
) -> Path:
    out = job.store.attempt(step.key, number)
    request = Request(
        step=step, store=job.store.root, out=out, attempt=number, device=device, checkpoint_s=checkpoint_s
    )
    assert process.stdin is not None
    process.stdin.write(request.model_dump_json() + "\n")
    process.stdin.flush()
    return out


def _told(process: subprocess.Popen[str]) -> Iterator[Event]:
    """Events up to the one that ends the step, or to the end of the process."""
    assert process.stdout is not None
    for line in process.stdout:
        event = parse(line)
        yield event
        if isinstance(event, Finished | Failed):
            return


def _longer(job: Job, name: str, budget: int) -> Step:
    """The job's recovery with more iterations, under a key of its own."""
    step = job.step(StepKind.RECOVER)
    recipe = step.params["recipe"] | {"budgets": [budget, budget]}
    return step.model_copy(update={"params": step.params | {"recipe": recipe}, "key": name})


def test_one_process_serves_many_requests_and_ends_with_its_input(job: Job) -> None:
    with _engine() as process:
        done = _ask(process, job, job.step(StepKind.RELABEL))
        assert isinstance([*_told(process)][-1], Finished)
        assert contents(done) == contents(job.folder(StepKind.RELABEL))

        params = job.step(StepKind.TEACH).params | {"precision": "fp16"}
        _ask(process, job, job.step(StepKind.TEACH).model_copy(update={"params": params, "key": "refused"}))
        (failed,) = _told(process)
        assert isinstance(failed, Failed) and failed.error.pointer == "/precision"

        done = _ask(process, job, job.step(StepKind.SELECT))
        assert isinstance([*_told(process)][-1], Finished)
        assert contents(done) == contents(job.folder(StepKind.SELECT))
        assert not job.store.is_whole("refused")

        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(120) == 0


def test_the_first_optimiser_of_a_step_loads_nothing_more() -> None:
    program = (
        "import sys, torch, engine.serve; engine.serve._load(); before = set(sys.modules)\n"
        "torch.optim.Adam([torch.zeros(1)], fused=True); assert not set(sys.modules) - before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_device_that_is_not_there_ends_the_process_and_fails_no_step(job: Job) -> None:
    with _engine() as process:
        _ask(process, job, job.step(StepKind.SELECT), device="cuda:99")
        assert [*_told(process)] == []
        assert process.wait(120) not in {0, EXIT_DRAINED}
        assert process.stderr is not None
        assert "'cuda:99' was asked for, but torch finds" in process.stderr.read()


def test_after_a_kill_the_next_attempt_leaves_the_same_bytes(job: Job) -> None:
    step = _longer(job, "killed", 40)
    with _engine() as process:
        _ask(process, job, step, checkpoint_s=0)
        seen = 0
        for event in _told(process):
            seen += isinstance(event, Checkpointed)
            if seen == 10:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(120) == -signal.SIGKILL
    checkpoints = sorted(job.store.checkpoints(step.key).glob("*.json"))
    assert json.loads(checkpoints[-1].read_bytes())["rank"] >= 10 * 6
    resumed = contents(attempt(step, job.store, 2))
    shutil.rmtree(job.store.checkpoints(step.key))
    assert resumed == contents(attempt(step, job.store, 3))


def test_asked_to_end_it_leaves_a_checkpoint_and_says_so(job: Job) -> None:
    step = _longer(job, "drained", 400)
    with _engine() as process:
        _ask(process, job, step, checkpoint_s=3600)
        told = _told(process)
        next(told)
        process.terminate()
        assert isinstance([*told][-1], Checkpointed)
        assert process.wait(120) == EXIT_DRAINED
    assert len(list(job.store.checkpoints(step.key).glob("*.safetensors"))) == 1
    with _engine() as process:  # one that only waits ends at once
        _ask(process, job, job.step(StepKind.PREPARE))
        assert isinstance([*_told(process)][-1], Finished)
        process.terminate()
        assert process.wait(120) == EXIT_DRAINED


def test_stray_prints_do_not_reach_the_events() -> None:
    program = """
import os, sys
from engine.events import Log
from engine.serve import private_stdout, tell
told = private_stdout()
print("from python", flush=True)
os.system("echo from a child")
os.write(1, b"from c")
tell([Log(message="grüße")], told)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert [event.model_dump()["message"] for event in map(parse, done.stdout.splitlines())] == ["grüße"]
    assert b"from python" in done.stderr and b"from a child" in done.stderr and b"from c" in done.stderr


def test_it_does_not_outlive_its_parent() -> None:
    """The parent of a parent starts an engine, and is killed: the engine is gone with it."""
    program = """
import os, subprocess, sys, time
from engine.launch import command, environment
child = subprocess.Popen(command(threads=1), env=environment(os.environ), stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    _wait_until_protected(child)
    parent.kill()
    parent.communicate()
    for _ in range(100):
        if not _is_running(child):
            return
        _sleep()
    raise AssertionError("the engine lives on")


def _wait_until_protected(pid: int) -> None:
    """Until it has imported torch and reads its input."""
    for _ in range(1800):
        wchan = Path(f"/proc/{pid}/wchan").read_text()
        maps = Path(f"/proc/{pid}/maps").read_text()
        if "libtorch" in maps and "pipe" in wchan:
            return
        _sleep()
    raise AssertionError("the engine never came to wait")


def _is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _sleep() -> None:
    import time

    time.sleep(0.1)


def test_a_child_without_its_parent_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "engine", "serve", "--parent", "1"],
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert done.returncode == EXIT_DRAINED
    assert SPEC.ipc == 2
