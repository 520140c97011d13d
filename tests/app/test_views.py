"""How a job reads while it is at work: its stages and its progress."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from app import jobs, views
from app.models import JobState
from app.views.jobs import progress
from app.views.stages import stage_state
from tests.app.world import Person, World, chain


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (("succeeded", "queued"), "queued"),  # some are done, and nobody is at the rest
        (("succeeded", "running", "queued"), "running"),
        (("running", "failed"), "failed"),
        (("succeeded", "cancelled"), "cancelled"),
        (("succeeded", "succeeded"), "succeeded"),
    ],
)
def test_a_stage_says_what_its_steps_are_doing(states: tuple[str, ...], word: str) -> None:
    assert stage_state(states) == word


def test_a_job_whose_stages_wait_between_two_steps_is_not_said_to_compute(world: World, owner: Person) -> None:
    job = world.submit(owner, chain("half", 4))
    for _ in range(2):
        lease = world.claim()
        assert lease is not None
        world.perform(lease)
    with world.services.database.read() as session:
        shown = {stage.kind: stage for stage in _shown(session, owner, job.id).stages}
    assert (shown["recover"].state, shown["recover"].whole, shown["recover"].progress) == ("queued", 1, 0.5)


def test_a_job_that_found_every_step_so_far_has_nothing_left_to_do(world: World, owner: Person) -> None:
    job = world.submit(owner, chain("found", 2))
    for _ in range(2):
        lease = world.claim()
        assert lease is not None
        world.finish(lease, cached=True)
    steps, row = world.steps(job.id), world.job(job.id)
    row.state = JobState.RUNNING  # as it is read between the last step's end and the job's
    assert progress(row, steps) == 1.0


def _shown(session: Session, owner: Person, job_id: str) -> views.JobOut:
    return views.job_out(session, jobs.get(session, owner.user, job_id))
