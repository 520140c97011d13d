"""How much memory a worker has for a step, and whether its GPU is its own: without a GPU, as a driver would tell it."""

from __future__ import annotations

import logging
import os
import threading

import pytest
from sqlalchemy import select

from app import workers
from app.claims import Room
from app.machine import Device, Memory, Process
from app.models import User, Worker
from tests.worker.stage import Stage, scripted
from worker.gauge import CONTEXT_BYTES, Gauge
from worker.presence import Presence

GIB = 2**30
OURS, THEIRS = Process(pid=7, name="engine", used_bytes=10 * GIB), Process(pid=40170, name="python3")


def gauge(shown: str = "GPU-1", *processes: Process, free: int | None = 30 * GIB) -> Gauge:
    gpu = Device(id="cuda:3", name="H200", uuid="GPU-1", free_bytes=free, total_bytes=40 * GIB, busy_pct=50)
    return Gauge(
        shown=shown,
        memory=lambda: Memory(16 * GIB, 24 * GIB),
        gpus=lambda: [Device(id="cuda:0", name="another"), gpu],
        processes=lambda: {"GPU-1": list(processes)},
    )


def test_on_the_cpu_a_step_has_the_machines_free_memory() -> None:
    assert gauge("").room(None) == Room(16 * GIB, None)
    own = gauge("").room(os.getpid())
    assert own is not None and own.host_bytes > 16 * GIB  # what this engine has is free for its next step


@pytest.mark.parametrize("shown", ["3", "GPU-1"])
def test_a_gpu_is_found_by_number_and_by_uuid(shown: str) -> None:
    assert gauge(shown).room(None) == Room(16 * GIB, 30 * GIB - CONTEXT_BYTES)


def test_what_the_engine_at_hand_holds_on_the_gpu_is_free_for_its_next_step() -> None:
    room = gauge("3", OURS).room(7)
    assert room is not None and room.device_bytes == 40 * GIB


def test_where_the_driver_tells_nothing_memory_is_not_looked_at() -> None:
    assert gauge("9").room(None) is None and gauge("3", free=None).room(None) is None


def test_who_is_no_engine_of_ours_is_a_stranger() -> None:
    assert gauge("3", OURS, THEIRS).strangers({7}) == [THEIRS]
    assert gauge("", OURS, THEIRS).strangers(set()) == []


def fleeting(there: list[Device], shown: str = "GPU-1") -> Gauge:
    """The gauge of a worker whose driver tells of what is in the list, at the moment."""
    moments = iter(range(0, 1_000_000, 60))
    seen = gauge(shown)
    seen.gpus, seen.clock = there.copy, lambda: float(next(moments))
    return seen


def test_a_gpu_is_gone_when_it_was_there() -> None:
    there = [Device(id="cuda:3", name="H200", uuid="GPU-1")]
    known, unknown, on_cpu = fleeting(there), fleeting(there, "MIG-7"), fleeting(there, "")
    assert not known.is_gone() and not unknown.is_gone() and not on_cpu.is_gone()
    there.clear()
    assert known.is_gone() and not unknown.is_gone() and not on_cpu.is_gone()
    assert not fleeting([]).is_gone()  # a container without the driver's tool


def test_one_answer_without_it_does_not_make_a_gpu_gone() -> None:
    gpu = Device(id="cuda:3", name="H200", uuid="GPU-1", free_bytes=30 * GIB, total_bytes=40 * GIB)
    answers: list[list[Device]] = [[gpu], [], [gpu], [], []]  # the tool was too slow once, then it told of none twice
    seen = fleeting([])
    seen.gpus = lambda: answers.pop(0)
    assert seen.room(None) == Room(16 * GIB, 30 * GIB - CONTEXT_BYTES)
    assert seen.room(None) == Room(16 * GIB, 30 * GIB - CONTEXT_BYTES) and len(answers) == 2
    assert seen.is_gone()


def test_the_last_minutes_are_kept_as_shares() -> None:
    seen = gauge("3")
    for _ in range(200):
        seen.sample()
    assert len(seen.samples) == 120 and list(seen.samples)[-1] == [0.5, 0.25]


def test_a_worker_takes_no_step_while_somebody_else_computes_on_its_gpu(stage: Stage) -> None:
    stage.submit(scripted("one"))
    carrier = stage.carrier()
    carrier.gauge = gauge("3", THEIRS)
    presence = Presence(carrier=carrier, device_name="H200", give_up=lambda: pytest.fail("deaf"), deaf_s=60.0)
    for now in (0.0, 100.0, 200.0):
        presence.look(now)
        assert carrier.drain() == 0
    row = presence_row(stage)
    assert row.strangers == [{"pid": 40170, "name": "python3", "used_bytes": None}]
    assert (row.device_free_bytes, row.host_total_bytes) == (30 * GIB, 24 * GIB)
    shared = stage.services.settings.model_copy(update={"share_gpus": True})
    object.__setattr__(stage.services, "settings", shared)
    assert carrier.drain() == 1


def test_a_worker_takes_no_step_while_its_gpu_is_gone_and_says_so_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker.presence")
    there = [Device(id="cuda:3", name="H200", uuid="GPU-1", free_bytes=30 * GIB, total_bytes=40 * GIB)]
    carrier = stage.carrier()
    carrier.gauge = fleeting(there)
    presence = Presence(carrier=carrier, device_name="H200", give_up=lambda: pytest.fail("deaf"), deaf_s=60.0)
    presence.look(0.0)
    assert presence_row(stage).refuses is None
    gone = there.pop()
    stage.submit(scripted("one"))
    for now in (50.0, 100.0, 200.0):
        presence.look(now)
        assert carrier.drain() == 0
    assert presence_row(stage).refuses == "the driver no longer tells of cpu on here"
    there.append(gone)
    presence.look(250.0)
    assert presence_row(stage).refuses is None and carrier.drain() == 1
    assert [one.getMessage() for one in caplog.records] == ["takes no steps", "takes steps again"]


def presence_row(stage: Stage) -> Worker:
    with stage.database.read() as session:
        return session.scalars(select(Worker)).one()


def test_a_step_that_does_not_fit_stays_for_others_and_nobody_is_deaf(stage: Stage) -> None:
    large = scripted("large").model_copy(update={"host_bytes": GIB, "device_bytes": 100 * GIB})
    stage.submit(large)
    carrier = stage.carrier()
    carrier.gauge = gauge("")
    presence = Presence(carrier=carrier, device_name="CPU", give_up=lambda: pytest.fail("deaf"), deaf_s=60.0)
    for now in (0.0, 100.0):
        presence.look(now)
        assert carrier.drain() == 0
    unmatched = stage.services.settings.model_copy(update={"match_memory": False})
    object.__setattr__(stage.services, "settings", unmatched)
    assert carrier.drain() == 1


def test_a_drained_worker_gives_its_step_back_and_another_goes_on(stage: Stage) -> None:
    step = scripted("long", units=60, pause_s=0.05)
    job = stage.submit(step)
    first = stage.carrier("first")
    Presence(carrier=first, device_name="a CPU").look(0.0)
    thread = threading.Thread(target=first.drain)
    thread.start()
    stage.until_done(step, 3)
    with stage.database.write() as session:
        workers.drain(session, first.holder.worker, session.get_one(User, "usr_1"))
    thread.join(20)
    assert not thread.is_alive() and [row.outcome for row in stage.attempts()] == ["released"]
    assert first.drain() == 0
    assert stage.carrier("second").drain() == 1
    assert stage.job(job).state == "succeeded"
    resumed = [event.data["resumed_at"] for event in stage.events(job) if event.kind == "started"]
    assert len(resumed) == 2 and resumed[1] > 0
