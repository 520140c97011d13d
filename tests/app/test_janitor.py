"""The janitor removes what has served its time, and nothing that anybody needs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from app.models import Event, Job, Preview, StepState, StoredStep, Upload, utc_now
from app.services import Services
from app.storage import janitor
from app.storage.janitor import Item
from engine.store import Store
from tests.app.world import Person, World, chain, files_of

LONG = timedelta(days=400)


def doomed(world: World, kind: str, after: timedelta = LONG) -> list[Item]:
    """What of a kind may go when so much time has passed."""
    return [item for item in janitor.doomed(world.services, utc_now() + after) if item.kind == kind]


def clean(world: World, after: timedelta = LONG, most: int | None = None) -> Sequence[Item]:
    return janitor.clean(world.services, most, utc_now() + after)


def change(world: World, job: Job, **values: object) -> None:
    with world.services.database.write() as session:
        session.execute(update(Job).where(Job.id == job.id).values(**values))


@pytest.fixture
def finished(any_world: World) -> Job:
    """A job of three steps, the second with a contact sheet, the last a download."""
    job = any_world.submit(any_world.person("owner"), chain("a", 3))
    any_world.work()
    return job


def test_steps_go_when_no_job_needs_them_and_downloads_stay(any_world: World, finished: Job) -> None:
    assert not doomed(any_world, "steps", timedelta(days=29))
    items = doomed(any_world, "steps", timedelta(days=31))
    assert [(item.name, item.title) for item in items] == [("a-0", "Step a-0"), ("a-1", "Step a-1")]
    assert any_world.count(StoredStep) == 3
    clean(any_world, timedelta(days=31))
    assert [key for key in ("a-0", "a-1", "a-2") if any_world.services.store.is_whole(key)] == ["a-2"]
    assert any_world.count(StoredStep) == 1 and any_world.job(finished.id).state == "succeeded"


@pytest.mark.parametrize("reason", ["unfinished", "pinned", "lately", "set to never"])
def test_steps_stay_while_somebody_needs_them(any_world: World, finished: Job, reason: str) -> None:
    if reason == "unfinished":
        any_world.submit(any_world.person("other"), chain("a", 3))
    if reason == "pinned":
        change(any_world, finished, pinned_by="owner")
    if reason == "lately":
        change(any_world, finished, finished_at=utc_now() + LONG - timedelta(days=1))
    if reason == "set to never":
        settings = any_world.services.settings.model_copy(update={"keep_steps_days": 0.0})
        any_world.services = Services(
            settings=settings,
            database=any_world.services.database,
            store=any_world.services.store,
            bell=any_world.services.bell,
        )
    clean(any_world)
    assert all(any_world.services.store.is_whole(f"a-{index}") for index in range(3))


def test_what_becomes_needed_after_the_look_stays(any_world: World, finished: Job) -> None:
    items = doomed(any_world, "steps")
    assert len(items) == 2 and finished.id
    any_world.submit(any_world.person("other"), chain("a", 3))
    for item in items:
        item.remove()
    assert all(any_world.services.store.is_whole(f"a-{index}") for index in range(3))


def test_the_rows_follow_the_folder(any_world: World, finished: Job) -> None:
    store = any_world.services.store
    shutil.copytree(store.step("a-1"), store.step("b"))
    store.remove("a-0")
    assert finished.id
    clean(any_world, timedelta())
    with any_world.services.database.read() as session:
        sizes = {row.key: row.size_bytes for row in session.scalars(select(StoredStep))}
    assert sizes == {key: store.manifest(key).size_bytes for key in ("a-1", "a-2", "b")}
    clean(any_world)
    assert sorted(store.whole_keys()) == ["a-2"]


def test_only_so_many_things_go_in_one_round(world: World, owner: Person) -> None:
    world.submit(owner, chain("a", 6))
    world.work()
    assert len(doomed(world, "steps")) == 5
    assert len(clean(world, most=2)) == 2 and len(doomed(world, "steps")) == 3


def test_looking_removes_nothing(any_world: World, finished: Job) -> None:
    before = files_of(any_world.services.store.root)
    assert list(janitor.doomed(any_world.services, utc_now() + LONG)) and finished.id
    assert files_of(any_world.services.store.root) == before


def test_checkpoints_go_with_the_last_job_that_wants_them(world: World, owner: Person) -> None:
    store = world.services.store
    job = world.submit(owner, chain("a"))
    (store.checkpoints("a-0") / "1.json").write_text("{}")
    assert not doomed(world, "work")
    lease = world.claim()
    assert lease is not None
    world.fail(lease)
    assert not doomed(world, "work", timedelta(days=6))
    assert [item.name for item in doomed(world, "work", timedelta(days=8))] == ["a-0"]
    clean(world, timedelta(days=8))
    assert not (store.root / "work" / "a-0").exists() and world.job(job.id).state == "failed"


def test_what_an_attempt_left_goes_and_that_of_a_running_one_stays(world: World, owner: Person) -> None:
    store, hours_ago = world.services.store, time.time() - 3 * 3600
    world.submit(owner, chain("a"))
    lease = world.claim()
    assert lease is not None and world.steps(lease.job_id)[0].state == StepState.RUNNING
    held = store.attempt("a-0", f"{lease.step_id}-{lease.fence}")
    left, new = store.attempt("a-0", "7-1"), store.attempt("a-0", "7-2")
    store.checkpoints("a-0")
    for folder in (held, left):
        os.utime(folder, (hours_ago, hours_ago))
    clean(world, timedelta())
    assert not left.exists() and held.exists() and new.exists() and store.checkpoints("a-0").exists()


def test_of_old_contact_sheets_the_newest_stays(any_world: World, finished: Job) -> None:
    store = any_world.services.store
    older = store.put_blob(b"older")
    with any_world.services.database.write() as session:
        session.add(Preview(step_key="a-1", x=1, sha256=older, data={}))
    assert not doomed(any_world, "previews", timedelta(days=89)) and finished.id
    clean(any_world, timedelta(days=91))
    with any_world.services.database.read() as session:
        [left] = session.scalars(select(Preview))
    assert left.x == 2 and store.blob(left.sha256).is_file() and not store.blob(older).exists()


def test_old_log_lines_go_and_what_happened_to_the_job_stays(any_world: World, finished: Job) -> None:
    def kinds() -> set[str]:
        with any_world.services.database.read() as session:
            return set(session.scalars(select(Event.kind).where(Event.job_id == finished.id)))

    assert kinds() >= {"log", "metrics", "step", "job"}
    clean(any_world, timedelta(days=181))
    assert kinds() >= {"step", "job", "preview"} and not kinds() & set(janitor.PASSING)


def test_archives_that_nobody_used_go_when_that_is_wanted(world: World, owner: Person) -> None:
    folder = world.services.store.uploads / "u"
    folder.mkdir(parents=True)
    (folder / "title.txt").write_text("Insects")
    with world.services.database.write() as session:
        session.add(Upload(id="u", owner_id=owner.user.id, title="Insects", size_bytes=1, facts={}))
    assert not doomed(world, "uploads")
    settings = world.services.settings.model_copy(update={"keep_uploads_days": 10.0})
    world.services = Services(
        settings=settings, database=world.services.database, store=world.services.store, bell=world.services.bell
    )
    assert not doomed(world, "uploads", timedelta(days=9))
    assert [item.title for item in doomed(world, "uploads")] == ["Insects"]
    clean(world)
    assert not folder.exists() and world.count(Upload) == 0


def test_an_error_with_one_thing_keeps_no_other_from_going(
    world: World, owner: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(owner, chain("a", 3))
    world.work()
    remove = Store.remove

    def failing(store: Store, key: str) -> None:
        if key == "a-0":
            raise OSError("broken")
        remove(store, key)

    monkeypatch.setattr(Store, "remove", failing)
    assert [item.name for item in clean(world) if item.kind == "steps"] == ["a-1"]


def test_the_thread_cleans_and_outlives_errors(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []

    def clean_once(_: Services) -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise OSError("broken")

    monkeypatch.setattr(janitor, "clean", clean_once)
    settings = world.services.settings.model_copy(update={"janitor_s": 0.01})
    one = janitor.Janitor(
        Services(
            settings=settings, database=world.services.database, store=world.services.store, bell=world.services.bell
        )
    )
    one.start()
    deadline = time.monotonic() + 10
    while len(rounds) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    one.stop()
    assert len(rounds) >= 3
