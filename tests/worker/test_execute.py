"""The worker's loop with a scripted engine: each way in which a step can end, on both databases."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import select, text, update

from app import claims, controls, leases, machine
from app.models import Job, JobState, Metric, Preview, Step, User
from app.reaper import Reaper
from tests.worker.stage import SCRIPTED, Stage, kill, scripted
from worker.engines import Engines, environment
from worker.execute import Carrier


def drain(carrier: Carrier) -> threading.Thread:
    """The loop in a thread, which outlives its engines."""
    thread = threading.Thread(target=carrier.drain)
    thread.start()
    return thread


def test_a_job_is_carried_to_its_end_by_one_engine(any_stage: Stage) -> None:
    first = scripted("first", units=3, preview_at=2, lines=2)
    second = scripted("second", needs={"data": first})
    job = any_stage.submit(first, second)
    assert any_stage.carrier().drain() == 2
    assert any_stage.job(job).state == JobState.SUCCEEDED
    assert len({note["pid"] for note in any_stage.ran()}) == 1
    assert any_stage.step(first).result == {"answer": 42} and any_stage.step(first).done == 3
    any_stage.check()


def test_what_the_engine_tells_is_kept(any_stage: Stage) -> None:
    step = scripted("telling", units=3, preview_at=2, lines=1)
    job = any_stage.submit(step)
    any_stage.carrier().drain()
    with any_stage.database.read() as session:
        values = {row.x: row.value for row in session.scalars(select(Metric).where(Metric.name == "loss"))}
        (preview,) = session.scalars(select(Preview))
    assert values == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert any_stage.store.blob(preview.sha256).read_bytes().endswith(b"a picture")
    lines = [event.data["message"] for event in any_stage.events(job) if event.kind == "log"]
    assert "line 0" in lines
    assert any("outside of the step's folder" in line for line in lines)


def test_contact_sheets_past_the_limit_are_left_out_and_the_log_says_so_once(
    make_stage: Callable[..., Stage], sqlite_url: str
) -> None:
    stage = make_stage(sqlite_url, max_previews_per_job=1)
    steps = [scripted(f"telling {index}", units=3, preview_at=2) for index in range(2)]
    job = stage.submit(*steps)
    stage.carrier().drain()
    assert stage.job(job).state == JobState.SUCCEEDED and stage.job(job).previews == 1
    lines = [event.data["message"] for event in stage.events(job) if event.kind == "log"]
    assert sum("the limit is 1 (FADRM_MAX_PREVIEWS_PER_JOB)" in line for line in lines) == 2  # one an attempt
    with stage.database.read() as session:
        assert len(session.scalars(select(Preview)).all()) == 1
    assert len(list(stage.store.blob("x").parent.iterdir())) == 1
    stage.check()


def test_equal_work_is_done_once_for_two_jobs(any_stage: Stage) -> None:
    step = scripted("shared", units=2)
    jobs = [any_stage.submit(step), any_stage.submit(step)]
    assert any_stage.carrier().drain() == 2
    assert [any_stage.job(job).state for job in jobs] == [JobState.SUCCEEDED] * 2
    assert len(any_stage.ran()) == 1
    with any_stage.database.read() as session:
        assert sorted(row.cached for row in session.scalars(select(Step))) == [False, True]
    any_stage.check()


def test_a_crash_goes_on_from_the_checkpoint(any_stage: Stage) -> None:
    step = scripted("falls", units=6, checkpoint_every=2, faults=[{"attempt": 1, "at": 5, "do": "segfault"}])
    job = any_stage.submit(step)
    any_stage.carrier().drain()
    assert any_stage.job(job).state == JobState.SUCCEEDED
    started = [event.data["resumed_at"] for event in any_stage.events(job) if event.kind == "started"]
    assert started == [0, 4]
    assert [row.outcome for row in any_stage.attempts()] == ["crashed", "succeeded"]
    assert "SIGSEGV" in (any_stage.attempts()[0].detail or "")
    any_stage.check()


@pytest.mark.parametrize("how", ["segfault", "kill", "exit", "close_stdout"])
def test_a_poison_step_is_given_up_and_others_go_on(
    make_stage: Callable[..., Stage], sqlite_url: str, how: str
) -> None:
    stage = make_stage(sqlite_url)
    faults = [{"attempt": attempt, "at": 1, "do": how} for attempt in range(1, 9)]
    poison, sound = scripted("poison", faults=faults), scripted("sound")
    bad, good = stage.submit(poison), stage.submit(sound)
    for _ in range(3):
        stage.carrier().drain()
        stage.hurry()
    assert stage.job(good).state == JobState.SUCCEEDED
    assert stage.job(bad).state == JobState.FAILED
    assert [row.outcome for row in stage.attempts() if row.outcome != "succeeded"] == ["crashed"] * 3
    error = stage.job(bad).error
    assert error is not None and error["code"] == "engine_crashed" and error["step"] == "poison"
    if how == "segfault":
        assert "about to fall" in error["details"]["log"]
    stage.check()


def test_what_the_engine_says_it_cannot_do_is_not_tried_again(stage: Stage) -> None:
    step = scripted("diverges", faults=[{"attempt": 1, "at": 2, "do": "fail"}])
    waiting = scripted("waits", needs={"data": step})
    job = stage.submit(step, waiting)
    stage.carrier().drain()
    error = stage.job(job).error
    assert stage.job(job).state == JobState.FAILED and error is not None and error["code"] == "nan_loss"
    assert len(stage.attempts()) == 1
    stage.check()


def test_a_full_disk_is_no_reason_to_give_up_at_once(stage: Stage) -> None:
    step = scripted("full for a while", faults=[{"attempt": 1, "at": 2, "do": "full"}])
    job = stage.submit(step)
    stage.carrier().drain()
    assert stage.job(job).state == JobState.SUCCEEDED
    assert [(row.outcome, row.detail) for row in stage.attempts()] == [
        ("crashed", "No space is left on the disk."),
        ("succeeded", None),
    ]


def test_a_disk_that_stays_full_ends_the_job_and_says_so(stage: Stage) -> None:
    job = stage.submit(scripted("full", faults=[{"attempt": attempt, "at": 2, "do": "full"} for attempt in (1, 2, 3)]))
    for _ in range(3):
        stage.hurry()
        stage.carrier().drain()
    error = stage.job(job).error
    assert stage.job(job).state == JobState.FAILED and error is not None and error["code"] == "disk_full"
    assert [row.outcome for row in stage.attempts()] == ["crashed"] * 3


def on_a_gpu(stage: Stage) -> Carrier:
    """A worker whose engines are told that they compute on a GPU."""
    carrier = stage.carrier()
    carrier.engines = Engines(device="cuda:0", threads=1, command=SCRIPTED)
    return carrier


def starving(*attempts: int) -> list[dict[str, object]]:
    return [{"attempt": attempt, "at": 2, "do": "starve"} for attempt in attempts]


def test_a_gpus_memory_may_suffice_for_an_engine_that_begins_anew(stage: Stage) -> None:
    first = scripted("first")
    job = stage.submit(first, scripted("starved once", needs={"data": first}, faults=starving(1)))
    on_a_gpu(stage).drain()
    assert stage.job(job).state == JobState.SUCCEEDED
    assert [(row.outcome, row.detail) for row in stage.attempts()] == [
        ("succeeded", None),
        ("crashed", "cuda:0 has too little memory."),
        ("succeeded", None),
    ]
    pids = [note["pid"] for note in stage.ran("begin")]
    assert pids[0] == pids[1] != pids[2]


def test_what_runs_out_of_a_gpus_memory_twice_is_given_up_until_somebody_has_it_tried_again(stage: Stage) -> None:
    job = stage.submit(scripted("starved", checkpoint_every=1, faults=starving(1, 2, 3)))
    carrier = on_a_gpu(stage)
    carrier.drain()
    error = stage.job(job).error
    assert stage.job(job).state == JobState.FAILED and error is not None and error["code"] == "gpu_out_of_memory"
    assert [row.outcome for row in stage.attempts()] == ["crashed", "failed"]
    with stage.database.write() as session:
        controls.retry(session, session.get_one(Job, job), session.get_one(User, "usr_1"))
    carrier.drain()
    assert stage.job(job).state == JobState.SUCCEEDED
    assert [row.outcome for row in stage.attempts()] == ["crashed", "failed", "crashed", "succeeded"]


def test_a_step_that_is_made_again_may_run_out_of_a_gpus_memory_once_again(stage: Stage) -> None:
    first = scripted("first", faults=starving(1, 3))
    job = stage.submit(first, scripted("second", needs={"data": first}))

    def spoil(carried: int) -> None:
        if carried == 2:
            stage.store.remove(first.key)

    carrier = on_a_gpu(stage)
    spoil_after_each_step(stage, carrier, spoil)
    carrier.drain()
    stage.hurry()
    carrier.drain()
    outcomes = [row.outcome for row in stage.attempts() if row.step_id == stage.step(first).id]
    assert stage.job(job).state == JobState.SUCCEEDED
    assert outcomes == ["crashed", "succeeded", "crashed", "succeeded"]


@pytest.mark.parametrize("end", ["cancelled", "lost"])
def test_a_step_that_ended_for_its_worker_may_run_out_of_a_gpus_memory_once_again(
    make_stage: Callable[..., Stage], sqlite_url: str, end: str
) -> None:
    stage = make_stage(sqlite_url, max_crashes=9)
    third = [{"attempt": 3, "at": at, "do": "starve"} for at in range(40)]  # wherever it goes on from
    step = scripted("starved", units=40, pause_s=0.05, faults=[*starving(1), *third])
    job, carrier = stage.submit(step), on_a_gpu(stage)
    thread = drain(carrier)
    stage.until(lambda: len(stage.ran("begin")) == 2)
    if end == "cancelled":
        stage.cancel(job)
        thread.join(20)
        with stage.database.write() as session:
            controls.retry(session, session.get_one(Job, job), session.get_one(User, "usr_1"))
    else:
        stage.until(lambda: expired(stage))
        thread.join(20)
    for _ in range(2):
        stage.hurry()
        carrier.drain()
    assert stage.job(job).state == JobState.SUCCEEDED
    assert [row.outcome for row in stage.attempts()] == ["crashed", end, "crashed", "succeeded"]


def test_what_runs_out_of_a_machines_own_memory_is_given_up_at_once(stage: Stage) -> None:
    job = stage.submit(scripted("starved", faults=starving(1)))
    stage.carrier().drain()
    assert stage.job(job).state == JobState.FAILED and [row.outcome for row in stage.attempts()] == ["failed"]


def test_a_step_that_is_said_to_be_whole_and_is_not_is_no_success(stage: Stage) -> None:
    job = stage.submit(scripted("liar", unsealed=True))
    for _ in range(3):
        stage.carrier().drain()
        stage.hurry()
    assert stage.job(job).state == JobState.FAILED
    stage.check()


def test_junk_on_stdout_is_a_line_of_the_log(any_stage: Stage) -> None:
    step = scripted("junk", faults=[{"attempt": 1, "at": 1, "do": "garbage"}])
    job = any_stage.submit(step)
    any_stage.carrier().drain()
    lines = [event.data["message"] for event in any_stage.events(job) if event.kind == "log"]
    assert any_stage.job(job).state == JobState.SUCCEEDED
    assert any("not json" in line and "\x00" not in line for line in lines)
    any_stage.check()


def test_numbers_that_no_database_takes_cost_their_batch_only(any_stage: Stage) -> None:
    step = scripted("odd", units=8, pause_s=0.15, faults=[{"attempt": 1, "at": 2, "do": "bad_numbers"}])
    job = any_stage.submit(step)
    any_stage.carrier().drain()
    assert any_stage.job(job).state == JobState.SUCCEEDED
    any_stage.check()


def test_a_flood_of_points_is_thinned(stage: Stage) -> None:
    job = stage.submit(scripted("flood", faults=[{"attempt": 1, "at": 1, "do": "flood"}]))
    stage.carrier().drain()
    with stage.database.read() as session:
        xs = [row.x for row in session.scalars(select(Metric).where(Metric.name == "flood"))]
    assert stage.job(job).state == JobState.SUCCEEDED
    assert len(xs) < 10_000 and max(xs) == 19_999
    stage.check()


@pytest.mark.parametrize("how", ["sleeps", "hang"])
def test_cancelling_ends_the_engine_within_seconds(make_stage: Callable[..., Stage], sqlite_url: str, how: str) -> None:
    stage = make_stage(sqlite_url, grace_s=1.0)
    step = scripted("long", units=1000, pause_s=0.05, faults=[{"attempt": 1, "at": 2, "do": how}])
    job = stage.submit(step, scripted("later", needs={"data": step}))
    thread = drain(stage.carrier())
    stage.until_done(step, 2)
    began = time.monotonic()
    stage.cancel(job)
    stage.until_ended(job)
    assert time.monotonic() - began < 3
    thread.join(10)
    assert stage.job(job).state == JobState.CANCELLED
    stage.check()


def test_an_engine_that_hangs_without_a_word_is_ended_and_its_step_tried_again(
    make_stage: Callable[..., Stage], sqlite_url: str
) -> None:
    stage = make_stage(sqlite_url, silence_s=6.0)
    fault = {"attempt": 1, "at": 2, "do": "hang"}
    job_id = stage.submit(scripted("hanging", units=3, checkpoint_every=1, faults=[fault]))
    stage.carrier().drain()
    assert stage.job(job_id).state == JobState.SUCCEEDED
    first, second = stage.attempts()
    assert (first.outcome, second.outcome) == ("crashed", "succeeded")
    assert first.detail == "The engine told nothing for 6 s, and was ended."
    stage.check()


def test_a_worker_that_is_to_stop_gives_its_step_back_with_a_checkpoint(any_stage: Stage) -> None:
    step = scripted("long", units=100, pause_s=0.05)
    job = any_stage.submit(step)
    stopping: list[bool] = []
    thread = drain(any_stage.carrier(stop=lambda: bool(stopping)))
    any_stage.until_done(step, 3)
    stopping.append(True)
    thread.join(5)
    assert not thread.is_alive()
    row = any_stage.step(step)
    assert (row.state, row.crash_streak, row.worker) == ("queued", 0, None)
    assert any_stage.attempts()[0].outcome == "released" and not any_stage.living_engines()
    with any_stage.database.write() as session:
        session.execute(update(Step).values(params={"units": 100, "pause_s": 0}))
    any_stage.carrier("w1").drain()
    resumed = [event.data["resumed_at"] for event in any_stage.events(job) if event.kind == "started"][-1]
    assert any_stage.job(job).state == JobState.SUCCEEDED and resumed >= 3
    any_stage.check()


def expired(stage: Stage) -> bool:
    """As the reaper would, which passes over a job that is being written."""
    with stage.database.write() as session:
        return Reaper(lease_s=1).expire(session, session.scalars(select(Step)).one()) is not None


def taken_over(stage: Stage) -> bool:
    """As the reaper would, and another worker's claim after it."""
    with stage.database.write() as session:
        if Reaper(lease_s=1).expire(session, session.scalars(select(Step)).one()) is None:
            return False
        assert claims.claim(session, claims.Holder(worker="there:cpu:0", host="there", device="cpu")) is not None
        return True


def test_who_lost_the_lease_ends_its_engine_and_publishes_nothing(any_stage: Stage) -> None:
    step = scripted("contested", units=30, pause_s=0.05)
    job = any_stage.submit(step)
    thread = drain(any_stage.carrier("slow"))
    any_stage.until_done(step, 2)
    (pid,) = any_stage.engine_pids()
    any_stage.until(lambda: taken_over(any_stage))
    any_stage.until(lambda: pid not in any_stage.living_engines())
    thread.join(5)
    row = any_stage.step(step)
    assert not thread.is_alive()
    assert not any_stage.store.is_whole(step.key)
    assert (row.state, row.fence, row.worker) == ("running", 2, "there:cpu:0")
    assert any_stage.ran() == [] and job


def test_who_finishes_after_losing_the_lease_publishes_nothing(stage: Stage) -> None:
    step = scripted("late", units=2, pause_s=0.3)
    stage.submit(step)
    slow = stage.carrier("slow")
    object.__setattr__(stage.settings, "heartbeat_s", 60.0)  # it hears of its loss only at the end
    thread = drain(slow)
    stage.until(lambda: stage.ran("begin"))
    assert taken_over(stage)
    thread.join(10)
    assert len(stage.ran()) == 1 and not stage.store.is_whole(step.key)


def test_an_engine_left_by_a_frozen_worker_is_ended_before_the_step_is_tried_again(stage: Stage) -> None:
    step = scripted("left", units=3, faults=[{"attempt": 1, "at": 1, "do": "hang"}])
    job = stage.submit(step)
    with stage.database.write() as session:
        lease = claims.claim(session, claims.Holder(worker="here:cpu:frozen", host="here", device="cpu"))
        assert lease is not None
    left = stage.carrier("frozen").engines.start()
    try:
        with stage.database.write() as session:
            leases.set_process(session, lease, pid=left.pid, pid_started=left.started)
            assert Reaper(lease_s=1).expire(session, session.scalars(select(Step)).one()) is not None
        assert stage.carrier("fresh").drain() == 1
        assert left.is_over and stage.job(job).state == JobState.SUCCEEDED
    finally:
        left.kill()
    stage.check()


def test_a_worker_takes_back_what_it_held_in_an_earlier_life(any_stage: Stage) -> None:
    step = scripted("orphan")
    job = any_stage.submit(step)
    with any_stage.database.write() as session:
        assert claims.claim(session, any_stage.carrier("w0").holder) is not None
    any_stage.carrier("w1").drain()
    assert any_stage.job(job).state == JobState.RUNNING  # not another's to take
    any_stage.carrier("w0").drain()
    assert any_stage.job(job).state == JobState.SUCCEEDED
    assert [row.outcome for row in any_stage.attempts()] == ["lost", "succeeded"]
    any_stage.check()


def test_a_worker_that_cannot_renew_its_lease_ends_its_engine(
    make_stage: Callable[..., Stage], sqlite_url: str
) -> None:
    stage = make_stage(sqlite_url, self_fence_s=1.0, lease_s=2.0)
    step = scripted("fenced", units=200, pause_s=0.05)
    stage.submit(step)
    stopping: list[bool] = []
    thread = drain(stage.carrier(stop=lambda: bool(stopping)))
    stage.until_done(step, 2)
    with stage.database.engine.connect() as other:
        other.execute(text("ROLLBACK"))
        other.execute(text("BEGIN EXCLUSIVE"))  # nobody can write, and whoever tries waits
        began = time.monotonic()
        while any(machine.started(note["pid"]) for note in stage.ran("begin")):
            assert time.monotonic() - began < 3
            time.sleep(0.05)
        assert time.monotonic() - began > 0.5
        stopping.append(True)
        other.execute(text("ROLLBACK"))
    thread.join(10)
    assert stage.step(step).state == "queued" and stage.attempts()[0].outcome == "released"


def test_finishing_waits_for_a_database_that_is_away(make_stage: Callable[..., Stage], sqlite_url: str) -> None:
    stage = make_stage(sqlite_url)
    step = scripted("patient", units=2, pause_s=0.3)
    job = stage.submit(step)
    thread = drain(stage.carrier())
    stage.until(lambda: stage.ran("begin"))
    with stage.database.engine.connect() as other:
        other.execute(text("ROLLBACK"))
        other.execute(text("BEGIN EXCLUSIVE"))
        stage.until(lambda: stage.ran("end"))
        time.sleep(0.5)
        other.execute(text("ROLLBACK"))
    stage.until_ended(job)
    thread.join(10)
    assert stage.job(job).state == JobState.SUCCEEDED and len(stage.attempts()) == 1
    stage.check()


def spoil_after_each_step(stage: Stage, carrier: Carrier, spoil: Callable[[int], object]) -> None:
    """Whenever a step was carried, `spoil` is called with how many were."""
    carried = itertools.count(1)

    def ring() -> None:
        spoil(next(carried))

    carrier.services.bell.ring = ring  # type: ignore[method-assign]


@pytest.mark.parametrize("how", ["gone", "damaged", "shorter", "no manifest", "bad manifest"])
def test_what_is_lost_from_the_store_is_made_again(any_stage: Stage, how: str) -> None:
    first = scripted("first")
    second = scripted("second", needs={"data": first})
    job = any_stage.submit(first, second)
    folder = any_stage.store.step(first.key)

    def spoil(carried: int) -> None:
        if carried > 1:
            return
        match how:
            case "gone":
                shutil.rmtree(folder)
            case "damaged":
                (folder / "out.txt").write_text("0" * 64)
            case "shorter":
                (folder / "out.txt").unlink()
            case "no manifest":
                (folder / "manifest.json").unlink()
            case "bad manifest":
                (folder / "manifest.json").write_text("{")

    carrier = any_stage.carrier()
    spoil_after_each_step(any_stage, carrier, spoil)
    carrier.drain()
    assert any_stage.job(job).state == JobState.SUCCEEDED
    assert [note["key"] for note in any_stage.ran()] == [first.key, first.key, second.key]
    assert (folder / "out.txt").read_text() == first.key and not any_stage.store.damaged(first.key)
    told = [event.data["detail"] for event in any_stage.events(job) if event.data.get("outcome") == "again"]
    assert len(told) == 1 and told[0].endswith("it is made again.")
    assert ("damaged" in told[0]) == (how in {"damaged", "shorter", "bad manifest"})


def test_what_an_earlier_job_left_is_looked_at_before_it_counts(stage: Stage) -> None:
    step = scripted("shared")
    stage.submit(step)
    stage.carrier().drain()
    (stage.store.step(step.key) / "out.txt").write_text("0" * 64)
    job = stage.submit(step)
    stage.carrier().drain()
    assert stage.job(job).state == JobState.SUCCEEDED and len(stage.ran()) == 2
    assert not stage.store.damaged(step.key)


def test_a_store_that_loses_everything_is_no_endless_loop(make_stage: Callable[..., Stage], sqlite_url: str) -> None:
    stage = make_stage(sqlite_url, max_attempts=3)
    first = scripted("first")
    job = stage.submit(first, scripted("second", needs={"data": first}))
    carrier = stage.carrier()
    spoil_after_each_step(stage, carrier, lambda _: stage.store.remove(first.key))
    carrier.drain()
    error = stage.job(job).error
    assert error is not None and error["code"] == "store_incomplete" and "first" in error["message"]
    assert len(stage.ran()) == 3


def test_a_lease_is_kept_while_large_files_are_looked_at(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scripted("first")
    second = scripted("second", needs={"data": first})
    stage.submit(first, second)
    stage.carrier("one").drain()
    with stage.database.write() as session:
        session.execute(update(Step).where(Step.key == second.key).values(state="queued", result=None))
        session.execute(update(Job).values(state="running"))
    stage.store.remove(second.key)
    looked: list[int] = []

    def slow(key: str, *, tick: Callable[[], None]) -> list[str]:
        for _ in range(3):
            time.sleep(0.15)
            tick()
        looked.append(stage.step(second).beat)
        return []

    monkeypatch.setattr(stage.store, "damaged", slow)
    stage.carrier("two").drain()
    assert looked[-1] >= 2 and stage.step(second).state == "succeeded"


def test_the_engine_is_given_no_secrets(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FADRM_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stage.submit(scripted("curious"))
    stage.carrier().drain()
    (note,) = stage.ran()
    environment = note["environment"]
    assert "secret" not in str(environment)
    assert environment["CUDA_VISIBLE_DEVICES"] == "" and environment["OMP_NUM_THREADS"] == "1"
    assert note["device"] == "cpu"


def test_of_this_services_variables_an_engine_is_given_only_whether_it_records_graphs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FADRM_CUDA_GRAPHS", "FADRM_CUDA_SECRET", "FADRM_REDIS_URL", "FADRM_THREADS"):
        monkeypatch.setenv(name, "0")
    stage.submit(scripted("curious"))
    stage.carrier().drain()
    (note,) = stage.ran()
    given = {name: value for name, value in note["environment"].items() if name.startswith("FADRM_")}
    assert given == {"FADRM_CUDA_GRAPHS": "0"}


def test_an_engine_is_given_the_compiler_and_the_folder_that_triton_is_to_use() -> None:
    wanted = {"CC": "/opt/bin/gcc-13", "TRITON_CACHE_DIR": "/var/cache/triton"}
    given = environment({"FADRM_SECRET": "secret"} | wanted, device="cuda:0", threads=1)
    assert given.items() >= wanted.items() and "FADRM_SECRET" not in given


def test_an_engine_that_is_killed_is_missed_at_once(stage: Stage) -> None:
    step = scripted("killed", units=10, pause_s=0.05, checkpoint_every=1)
    job = stage.submit(step)
    thread = drain(stage.carrier())
    stage.until_done(step, 3)
    began = time.monotonic()
    kill(stage.engine_pids()[0])
    stage.until(lambda: len(stage.attempts()) == 2)
    assert time.monotonic() - began < 2
    stage.until_ended(job)
    thread.join(10)
    assert [row.outcome for row in stage.attempts()] == ["crashed", "succeeded"]
    stage.check()


def test_nothing_is_claimed_when_the_disk_is_at_its_reserve(make_stage: Callable[..., Stage], sqlite_url: str) -> None:
    stage = make_stage(sqlite_url, reserve_bytes=10**18)
    stage.submit(scripted("waits"))
    assert stage.carrier().drain() == 0 and not stage.attempts()
