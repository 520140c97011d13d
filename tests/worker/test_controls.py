"""People's control over jobs, as workers meet it."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from sqlalchemy import update

from app import controls
from app.models import Job, JobState, Step, User
from tests.worker.stage import Stage, scripted
from tests.worker.test_execute import drain


def ask(stage: Stage, how: Callable[..., None], job_id: str) -> None:
    with stage.database.write() as session:
        how(session, session.get_one(Job, job_id), session.get_one(User, "usr_1"))


def test_a_paused_job_leaves_a_checkpoint_frees_its_worker_and_goes_on_later(any_stage: Stage) -> None:
    step = scripted("long", units=200, pause_s=0.05)
    job = any_stage.submit(step)
    thread = drain(any_stage.carrier())
    any_stage.until_done(step, 3)
    ask(any_stage, controls.pause, job)
    thread.join(20)
    assert not thread.is_alive() and not any_stage.living_engines()
    assert any_stage.job(job).state == JobState.PAUSED
    assert [row.outcome for row in any_stage.attempts()] == ["released"]
    assert any_stage.carrier().drain() == 0, "a paused job was worked on"
    with any_stage.database.write() as session:
        session.execute(update(Step).values(params={"units": 200, "pause_s": 0}))
    ask(any_stage, controls.resume, job)
    any_stage.carrier("w1").drain()
    resumed = [event.data["resumed_at"] for event in any_stage.events(job) if event.kind == "started"][-1]
    assert any_stage.job(job).state == JobState.SUCCEEDED and resumed >= 3
    any_stage.check()


def test_pausing_what_hangs_is_no_crash_of_it(make_stage: Callable[..., Stage], sqlite_url: str) -> None:
    stage = make_stage(sqlite_url, grace_s=0.5)
    step = scripted("hanging", units=10, pause_s=0.05, faults=[{"attempt": 1, "at": 2, "do": "hang"}])
    job = stage.submit(step)
    thread = drain(stage.carrier())
    stage.until_done(step, 2)
    ask(stage, controls.pause, job)
    thread.join(20)
    assert stage.job(job).state == JobState.PAUSED and stage.step(step).crash_streak == 0
    ask(stage, controls.resume, job)
    stage.carrier().drain()
    assert stage.job(job).state == JobState.SUCCEEDED
    stage.check()


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_poison_step_that_is_tried_again_keeps_what_is_whole(stage: Stage, is_gone: bool) -> None:
    first = scripted("first")
    faults = [{"attempt": attempt, "at": 1, "do": "exit"} for attempt in (1, 2, 3)]
    poison = scripted("poison", needs={"data": first}, faults=faults)
    job = stage.submit(first, poison)
    for _ in range(3):
        stage.carrier().drain()
        stage.hurry()
    assert stage.job(job).state == JobState.FAILED and stage.step(poison).attempts == 3
    if is_gone:
        shutil.rmtree(stage.store.step(first.key))
    with stage.database.write() as session:
        ada = session.get_one(User, "usr_1")
        controls.retry(session, session.get_one(Job, job), ada, is_whole=stage.store.is_whole)
    assert stage.step(poison).attempts == 0
    stage.carrier().drain()
    assert stage.job(job).state == JobState.SUCCEEDED and stage.job(job).error is None
    made = [note["key"] for note in stage.ran()].count(first.key)
    assert made == (2 if is_gone else 1)
