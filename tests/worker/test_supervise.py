"""The engine process seen from outside: what it says, how it ends, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import machine
from engine.events import Log, Metric, Progress
from worker import supervise
from worker.engines import Engines, environment
from worker.pending import MOST_LINES, MOST_METRICS, MOST_PENDING, Pending, coalesced
from worker.supervise import EngineProcess, Fuse, printable

Start = Callable[..., EngineProcess]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start("print(1)")`: a process that runs this program."""
    started: list[EngineProcess] = []

    def start(program: str) -> EngineProcess:
        started.append(EngineProcess([sys.executable, "-c", program], os.environ))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def until_over(process: EngineProcess, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not process.wait(0.05):
        assert time.monotonic() < deadline


def test_its_last_words_are_kept(start: Start) -> None:
    process = start("import sys; [print(n, file=sys.stderr) for n in range(500)]; sys.exit('the end')")
    until_over(process)
    report = process.obituary()
    assert report.code == "engine_crashed" and "exit code 1: the end" in report.message
    assert report.details["log"][0] == "301" and len(report.details["log"]) == supervise.LAST_LINES
    assert report.details["exit_code"] == 1


def test_who_was_killed_for_memory_is_told_so(start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counter = tmp_path / "vmstat"
    counter.write_text("pgfault 12\noom_kill 3\n")
    monkeypatch.setattr(supervise, "OOM_COUNTERS", (counter,))
    process = start("import time; time.sleep(60)")
    os.kill(process.pid, signal.SIGKILL)
    until_over(process)
    assert process.obituary().code == "engine_crashed"
    counter.write_text("pgfault 99\noom_kill 4\n")
    assert process.obituary().code == "host_out_of_memory"


def test_it_is_the_first_that_the_oom_killer_takes(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"


def test_its_children_end_with_it(start: Start, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    process = start(
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    deadline = time.monotonic() + 10
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    time.sleep(0.2)
    assert machine.started(int(note.read_text())) is None


def test_who_does_not_heed_the_first_signal_is_killed(start: Start) -> None:
    process = start("import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)")
    while not process.pending.take():
        time.sleep(0.02)
    began = time.monotonic()
    process.terminate(0.5)
    assert process.exit_code == -signal.SIGKILL and 0.4 < time.monotonic() - began < 3
    assert process.ended_by_us


def test_a_fuse_that_is_renewed_does_not_blow_and_one_that_is_not_does(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    with Fuse(process, limit_s=0.5, grace_s=0.2) as fuse:
        for _ in range(8):
            fuse.renew(time.monotonic())
            time.sleep(0.1)
        assert not fuse.blown and not process.is_over
        until_over(process)
        assert fuse.blown


def test_a_line_without_end_costs_no_memory(start: Start) -> None:
    process = start("import sys; sys.stdout.write('x' * 5_000_000); sys.stdout.flush()")
    until_over(process)
    lines = [event for event in process.pending.take() if isinstance(event, Log)]
    assert lines and all(len(line.message) <= supervise.LONGEST_MESSAGE for line in lines)


def test_a_leftover_is_ended_only_when_it_is_the_same_process(start: Start) -> None:
    process = start("import time; time.sleep(60)")
    assert not machine.kill_leftover(process.pid, process.started + 1)
    assert not process.is_over
    assert machine.kill_leftover(process.pid, process.started)
    until_over(process)
    assert not machine.kill_leftover(process.pid, process.started)


def test_lines_are_printable() -> None:
    assert printable(b"a\x00b\x1b[31m\tc\xff\n") == "a�b�[31m c�"


def test_what_piles_up_is_bounded_and_still_tells_the_story() -> None:
    pending = Pending()
    for x in range(MOST_PENDING):
        pending.add(Metric(x=x, values={"loss": 1.0}))
        pending.add(Progress(done=x, total=9, unit="iterations"))
        pending.add(Log(message=str(x)))
    events = pending.take()
    metrics = [event for event in events if isinstance(event, Metric)]
    logs = [event for event in events if isinstance(event, Log)]
    assert len(metrics) <= MOST_METRICS and metrics[-1].x == MOST_PENDING - 1
    assert [event.done for event in events if isinstance(event, Progress)] == [MOST_PENDING - 1]
    assert len(logs) == MOST_LINES + 1 and "left out" in logs[0].message
    assert pending.take() == []


def test_what_was_given_back_comes_first() -> None:
    pending = Pending()
    pending.add(Log(message="second"))
    pending.give_back([Log(message="first")])
    assert [event.message for event in pending.take() if isinstance(event, Log)] == ["first", "second"]


def test_a_curve_with_few_points_keeps_them_beside_one_with_many() -> None:
    events = [Metric(x=x, values={"fast": 1.0}) for x in range(5_000)]
    events.insert(2_500, Metric(x=7, values={"slow": 2.0}))
    kept = coalesced(events)
    assert any(isinstance(event, Metric) and event.x == 7 for event in kept)


def test_an_engine_sees_its_device_and_no_secret() -> None:
    base = {"PATH": "/bin", "FADRM_DATABASE_URL": "postgresql://u:secret@h/d", "CUDA_VISIBLE_DEVICES": "4,5"}
    made = environment(base, device="cuda:1", threads=3)
    assert made["CUDA_VISIBLE_DEVICES"] == "5" and made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == "3"
    assert "secret" not in str(made)
    assert environment(base, device="cpu", threads=1)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment({}, device="cuda:2", threads=1)["CUDA_VISIBLE_DEVICES"] == "2"
    assert Engines(device="cuda:1", threads=1).seen_device == "cuda:0"
