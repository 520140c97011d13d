"""What a worker does beside its work: its row, its second pair of ears, its name."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.models import Worker
from app.settings import Settings
from tests.worker.stage import Stage, scripted
from worker.member import enlist
from worker.presence import Presence


@pytest.fixture
def given_up() -> list[float]:
    return []


@pytest.fixture
def presence(stage: Stage, given_up: list[float]) -> Presence:
    return Presence(
        carrier=stage.carrier("0"),
        device_name="a CPU",
        give_up=lambda: given_up.append(1.0),
        deaf_s=60.0,
    )


def rows(stage: Stage) -> list[Worker]:
    with stage.database.read() as session:
        return list(session.scalars(select(Worker)))


def test_a_worker_shows_itself_and_its_step_and_takes_its_row_along(stage: Stage, presence: Presence) -> None:
    presence.look(0.0)
    (row,) = rows(stage)
    assert (row.id, row.device, row.device_name, row.step_id) == ("here:cpu:0", "cpu", "a CPU", None)
    step = scripted("one")
    stage.submit(step)
    presence.on_step(stage.step(step).id)
    presence.look(1.0)
    assert rows(stage)[0].step_id == stage.step(step).id
    presence.close()
    assert rows(stage) == []


def test_who_is_idle_beside_work_for_long_is_deaf(stage: Stage, presence: Presence, given_up: list[float]) -> None:
    presence.look(0.0)
    stage.submit(scripted("waiting"))
    for now in (1.0, 30.0, 60.9):
        presence.look(now)
    assert given_up == []
    presence.look(61.1)
    assert given_up == [1.0]


def test_who_works_or_has_nothing_to_do_is_not_deaf(stage: Stage, presence: Presence, given_up: list[float]) -> None:
    presence.look(0.0)
    presence.look(1000.0)
    stage.submit(scripted("waiting"))
    presence.look(1001.0)
    presence.busy(True)
    presence.look(2000.0)
    presence.busy(False)
    presence.look(2001.0)
    presence.look(2030.0)
    assert given_up == []


def test_two_workers_never_have_one_name(stage: Stage) -> None:
    settings = stage.settings
    first, held = enlist(settings)
    second, also = enlist(settings)
    elsewhere, other = enlist(Settings(home=settings.home, database_url="sqlite:///elsewhere.db"))
    try:
        assert first.worker.endswith(":cpu:0") and second.worker.endswith(":cpu:1")
        assert elsewhere.worker == first.worker
        held.close()
        third, held = enlist(settings)
        assert third.worker == first.worker
    finally:
        for name in (held, also, other):
            name.close()
