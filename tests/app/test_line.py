"""What a waiting job says: its place, what the workers are busy with, and when it starts."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, update

from app import controls, jobs, views
from app.line import latest
from app.models import Step, StepState
from app.views.sentences import _ordinal, _soon
from tests.app.world import Person, World, chain


@pytest.fixture
def any_busy(any_world: World) -> World:
    """One worker, which is at the first of ann's two jobs; steps took eight minutes lately."""
    world, ann = any_world, any_world.person("ann")
    world.worker_online()
    world.submit(ann, chain("done", 2))
    world.work()
    with world.services.database.write() as session:
        session.execute(update(Step).where(Step.state == StepState.SUCCEEDED).values(seconds=480.0))
    world.submit(ann, chain("first", 2), name="Flowers")
    assert world.claim() is not None
    world.submit(ann, chain("second", 2), name="Birds")
    world.submit(world.person("bob"), chain("third", 2), name="Secret")
    return world


def shown(world: World, person: Person) -> dict[str, views.JobSummary]:
    """Name -> the job as it reads."""
    with world.services.database.read() as session:
        return {job.name: job for job in views.page_of_jobs(session, person.user, views.JobFilter(owner="me")).data}


def test_who_had_less_lately_is_first_in_line_and_foreign_jobs_are_not_named(any_busy: World) -> None:
    job = shown(any_busy, any_busy.person("bob"))["Secret"]
    assert job.sentence == (
        "Waiting, next in line: 1 worker is busy with somebody else’s job; starts in about 8 min."  # the step that runs
    )
    assert (job.queue.position, job.queue.ahead, job.queue.starts_in_minutes) == (1, 0, 8)


def test_a_later_job_waits_for_its_owners_earlier_one_and_for_what_others_get_meanwhile(any_busy: World) -> None:
    job = shown(any_busy, any_busy.person("ann"))["Birds"]
    assert job.sentence == "Waiting, 2nd in line: 1 worker is busy with “Flowers”; starts in about 32 min."
    assert job.queue.position == 2


def test_a_priority_moves_a_job_before_its_owners_others(any_busy: World) -> None:
    ann, admin = any_busy.person("ann"), any_busy.person("admin")
    late = any_busy.submit(ann, chain("late", 2), name="Late")
    assert shown(any_busy, ann)["Late"].queue.position == 3
    with any_busy.services.database.write() as session:
        controls.change(session, jobs.get(session, ann.user, late.id), admin.user, priority=1)
    now = shown(any_busy, ann)
    assert (now["Late"].queue.position, now["Birds"].queue.position) == (2, 3)  # bob had less, and stays first


def test_where_a_worker_is_free_the_first_in_line_waits_for_nothing(any_world: World) -> None:
    any_world.worker_online()
    ann = any_world.person("ann")
    any_world.submit(ann, chain("a", 2), name="A")
    any_world.submit(ann, chain("b", 2), name="B")
    now = shown(any_world, ann)
    assert now["A"].sentence == "Waiting for a free worker: next in line."
    assert now["B"].sentence == "Waiting, 2nd in line."  # nothing is known yet of how long steps take


def test_a_paused_job_is_in_no_line_and_says_what_it_keeps(any_world: World) -> None:
    any_world.worker_online()
    ann = any_world.person("ann")
    job = any_world.submit(ann, chain("a", 3), name="A")
    first = any_world.claim()
    assert first is not None
    any_world.finish(first)
    second = any_world.claim()
    assert second is not None
    with any_world.services.database.write() as session:
        controls.pause(session, jobs.get(session, ann.user, job.id), ann.user)
    assert shown(any_world, ann)["A"].sentence == "Pausing, as ann asked: what runs leaves a checkpoint first."
    any_world.release(second)
    now = shown(any_world, ann)["A"]
    assert now.state == "paused" and now.sentence == "Paused by ann; keeps 1 of 3 steps."
    assert now.queue.position is None and now.eta_seconds is None


def test_a_plan_says_when_one_more_job_would_start(any_busy: World) -> None:
    with any_busy.services.database.read() as session:
        line = latest(session)
    ann, bob, cid = (any_busy.person(name).user.id for name in ("ann", "bob", "cid"))
    waits = {
        job.name: job.queue.starts_in_minutes
        for name in ("ann", "bob")
        for job in shown(any_busy, any_busy.person(name)).values()
    }
    starts = {who: line.another_starts_in_s(user, 1) for who, user in (("ann", ann), ("bob", bob), ("cid", cid))}
    assert starts["cid"] == pytest.approx(8 * 60)  # nobody had less, and the step that runs ends first
    assert starts["bob"] is not None and starts["ann"] is not None
    assert 480 <= starts["bob"] < starts["ann"] and starts["ann"] / 60 > (waits["Birds"] or 0)
    assert line.another_starts_in_s(cid, 4) == 0.0  # a worker is free
    assert line.another_starts_in_s(cid, 0) is None


def looks(world: World) -> list[str]:
    """Filled from now on with every query that looks at the whole line."""
    found: list[str] = []

    def noted(*given: Any) -> None:
        found.extend(filter(lambda text: "GROUP BY jobs.id" in text, given[2:3]))

    event.listen(world.services.database.engine, "before_cursor_execute", noted)
    return found


def test_many_readers_of_one_moment_share_one_look_at_the_line(any_busy: World) -> None:
    ann, found = any_busy.person("ann"), looks(any_busy)
    assert len({shown(any_busy, ann)["Birds"].sentence for _ in range(5)}) == 1
    assert len(found) <= 2  # a second may pass between


def test_after_every_event_the_line_is_looked_at_anew(any_busy: World) -> None:
    ann = any_busy.person("ann")
    before = shown(any_busy, ann)["Birds"].queue.position
    found = looks(any_busy)
    any_busy.submit(any_busy.person("cid"), chain("fourth", 2))
    assert before == 2 and shown(any_busy, ann)["Birds"].queue.position == 3 and len(found) == 1


@pytest.mark.parametrize(
    ("number", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (22, "22nd")]
)
def test_places_are_counted_as_people_do(number: int, word: str) -> None:
    assert _ordinal(number) == word


@pytest.mark.parametrize(
    ("minutes", "words"), [(0, "in less than a minute"), (12, "in about 12 min"), (150, "in about 2 h")]
)
def test_times_are_as_rough_as_they_are(minutes: int, words: str) -> None:
    assert _soon(minutes) == words
