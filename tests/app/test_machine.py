"""The rules of jobs and leases under every order of events: submits, claims, heartbeats, crashes, reapers, people who
cancel, pause, resume, retry and prefer, and workers that come back with a lease they lost. What must be true: machine.py.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import textwrap
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    Bundle,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, update
from sqlalchemy.exc import NoResultFound, SQLAlchemyError
from sqlalchemy.orm import Session

from app import claims, controls, jobs, leases
from app.claims import Holder
from app.db import Base, Database
from app.errors import Conflict, Forbidden, TooMany, Unprocessable
from app.jobs import Wish
from app.leases import Lease, LeaseLost
from app.models import TERMINAL_JOB_STATES, TERMINAL_STEP_STATES, Attempt, Job, Step, User
from app.reaper import Reaper
from engine import events
from engine.errors import ErrorReport
from tests.app.histories import ENDED, check_histories
from tests.app.machine import LEASE_S, MAX_UNFINISHED, OWNERS, Known, diamond
from tests.app.world import SPEC

WORKERS = ("w1", "w2", "w3")
MAY_REFUSE = {  # states in which a job cannot be ...
    "cancel": {"succeeded", "failed"},
    "pause": TERMINAL_JOB_STATES,
    "resume": TERMINAL_JOB_STATES,
    "retry": {"succeeded", "paused"},
}
WHOSE = st.sampled_from(["good", "good", "rival", "any"])
ERROR = ErrorReport(code="nan_loss", message="Not finite.")


class Jobs(Known):
    """What is done to the database."""

    taken = Bundle("taken")
    to_the_end: ClassVar[bool] = True  # whether each game is played until every job has ended

    @initialize()
    def begin(self) -> None:
        """Work to quarrel about: two jobs that share steps, and one of somebody else."""
        self.submit("ann", None, 0, "d", "t")
        self.submit("ann", None, 0, "e", "u")
        self.submit("bob", "k1", 0, "d", "t")

    @rule(
        owner=st.sampled_from(OWNERS),
        key=st.sampled_from([None, "k1", "k2"]),
        seed=st.integers(0, 1),
        data=st.sampled_from("de"),
        teacher=st.sampled_from("tu"),
    )
    def submit(self, owner: str, key: str | None, seed: int, data: str, teacher: str) -> None:
        spec = SPEC.model_copy(update={"seed": seed})
        known = self.accepted.get((owner, key)) if key else None
        try:
            with self.database.write() as session:
                job, is_new = jobs.create(
                    session,
                    owner=self.owners[owner],
                    name="a job",
                    spec=spec,
                    plan=diamond(data, teacher),
                    idempotency_key=key,
                    max_unfinished=MAX_UNFINISHED,
                )
        except Unprocessable:
            assert known and self._row(known).spec_sha256 != spec.digest()
        except TooMany:
            assert not known and self._unfinished(owner) >= MAX_UNFINISHED
        else:
            assert is_new == (known is None) and (is_new or (job.id == known and job.spec_sha256 == spec.digest()))
            assert not is_new or self._unfinished(owner) <= MAX_UNFINISHED
            self.accepted[(owner, key) if key else job.id] = job.id

    @rule(target=taken, worker=st.sampled_from(WORKERS), prefer=st.booleans(), cap=st.sampled_from([1, 2, 9]))
    def claim(self, worker: str, prefer: bool, cap: int) -> Any:
        busy = self._busy()
        with self.database.write() as session:
            prefer_job = session.scalar(select(func.max(Job.id))) if prefer else None
            lease = claims.claim(
                session,
                Holder(worker=worker, host="h", device="cpu"),
                prefer_job=prefer_job,
                max_running_per_user=cap,
            )
        if lease is None:
            with self.database.read() as session:
                holder = Holder(worker=worker, host="h", device="cpu")
                assert not claims.is_claimable(session, holder, max_running_per_user=cap)
            return multiple()
        job = self._row(lease.job_id)
        assert lease.step_id not in self.held and busy[job.owner_id] < cap
        assert job.paused_by is None and not jobs.stops(job), "work was begun that nobody wants now"
        self.held[lease.step_id] = lease
        self.heard[lease.step_id] = self.now
        self.past.append(lease)
        return lease

    @rule(target=taken, lease=taken, number=st.integers(0, 3), worker=st.sampled_from(WORKERS))
    def hand_over(self, lease: Lease, number: int, worker: str) -> Any:
        """A worker goes away, and another comes at once: now the first may come back."""
        self.end(lease, "good", number, "release")
        return self.claim(worker, False, 9)

    @rule(
        lease=taken,
        whose=WHOSE,
        number=st.integers(0, 3),
        x=st.integers(0, 3),
        kinds=st.sets(st.sampled_from(["started", "metric", "checkpoint", "progress"])),
    )
    def write(self, lease: Lease, whose: str, number: int, x: int, kinds: set[str]) -> None:
        lease = self._pick(whose, number, lease)
        told: dict[str, events.Event] = {
            "started": events.Started(total=4, unit="epochs"),
            "metric": events.Metric(x=x, values={"loss": float(lease.fence)}),
            "checkpoint": events.Checkpointed(done=x),
            "progress": events.Progress(done=x, total=4, unit="epochs"),
        }
        with self._as_holder(lease), self.database.write() as session:
            wanted = leases.record(session, lease, [told[kind] for kind in sorted(kinds)])
            assert wanted == jobs.wish(session.get_one(Job, lease.job_id))
            if "checkpoint" in kinds:
                self.streaks[lease.step_id] = 0
            self.heard[lease.step_id] = self.now

    @rule(
        lease=taken,
        whose=WHOSE,
        number=st.integers(0, 3),
        how=st.sampled_from(["finish", "finish", "cached", "fail", "release", "crash", "stop"]),
    )
    def end(self, lease: Lease, whose: str, number: int, how: str) -> None:
        """Any lease may try, also one that was lost or used up: only the good one may have an effect."""
        lease = self._pick(whose, number, lease)
        if how == "stop" and not jobs.stops(self._row(lease.job_id)):
            return  # workers stop an engine only when they are told to
        with self._as_holder(lease, ends=True), self.database.write() as session:
            match how:
                case "stop":
                    leases.cancelled(session, lease)
                case "finish" | "cached":
                    leases.finish(session, lease, result={"x": 1}, seconds=1.0, cached=how == "cached")
                case "fail":
                    leases.fail(session, lease, ERROR)
                case "release":
                    leases.release(session, lease)
                case _:
                    self._crash(session, lease)

    def _crash(self, session: Session, lease: Lease) -> None:
        """The third in a row without a checkpoint is the last."""
        leases.crash(session, lease, ERROR)
        streak = self.streaks.get(lease.step_id, 0) + 1
        self.streaks[lease.step_id] = streak
        step = session.get_one(Step, lease.step_id, populate_existing=True)
        stopped = jobs.stops(session.get_one(Job, lease.job_id)) and step.state == "cancelled"
        assert stopped or (step.state == "failed") == (streak >= 3)

    @rule(which=st.integers(0, 19))
    def cancel(self, which: int) -> None:
        """Seldom, or there would be nothing left to work on."""
        self.control(which, "cancel")

    @rule(which=st.integers(0, 3), how=st.sampled_from(["pause", "resume", "retry"]))
    def control(self, which: int, how: str) -> None:
        """What is asked for twice is so already."""
        ids = sorted(set(self.accepted.values()))
        if which >= len(ids):
            return
        before = self._row(ids[which])
        whole = self._whole_steps(before.id)
        for _ in range(2):
            try:
                with self.database.write() as session:
                    self._ask(session, session.get_one(Job, before.id), how)
            except Conflict:
                assert before.state in MAY_REFUSE[how] or jobs.stops(before)
                return
            except TooMany:
                assert how == "retry" and self._unfinished("ann") + self._unfinished("bob") >= MAX_UNFINISHED
                return
            if how == "retry":
                self._forget_crashes(before.id)
            after = self._row(before.id)
            match how:
                case "cancel":
                    assert jobs.wish(after) == Wish.STOP
                case "pause":
                    assert jobs.wish(after) == Wish.PAUSE and (after.state == "paused" or self._is_held(before.id))
                case _:
                    assert jobs.wish(after) == Wish.WORK and after.state in {"queued", "running"}
            assert whole <= self._whole_steps(before.id), "whole steps were lost"

    def _forget_crashes(self, job_id: str) -> None:
        with self.database.read() as session:
            for step in jobs.steps_of(session, job_id):
                if step.crash_streak == 0:
                    self.streaks[step.id] = 0

    def _ask(self, session: Session, job: Job, how: str) -> None:
        match how:
            case "retry":
                controls.retry(session, job, owner_of(session, job), max_unfinished=MAX_UNFINISHED)
            case _:
                getattr(controls, how)(session, job, owner_of(session, job))

    @rule(which=st.integers(0, 9), priority=st.integers(-2, 2), by=st.sampled_from([*OWNERS, "root"]))
    def prefer(self, which: int, priority: int, by: str) -> None:
        """A priority orders what waits, and changes nothing else."""
        ids = sorted(set(self.accepted.values()))
        if which >= len(ids):
            return
        before = self._row(ids[which])
        is_foreign = before.owner_id != self.owners[by].id
        try:
            with self.database.write() as session:
                controls.change(session, session.get_one(Job, before.id), self.owners[by], priority=priority)
        except Forbidden:
            assert by != "root" and (is_foreign or priority > max(before.priority, 0))
        except Conflict:
            assert before.state in TERMINAL_JOB_STATES
        else:
            assert self._row(before.id).priority == priority
            assert by == "root" or (priority <= max(before.priority, 0) and not is_foreign)

    @rule(seconds=st.sampled_from([1.0, 20.0, 59.0, 61.0]), restarts=st.booleans())
    def time_passes(self, seconds: float, restarts: bool) -> None:
        """Pauses after crashes end; a reaper looks, which may have been started anew."""
        self.now += seconds
        self.reaper = Reaper(LEASE_S) if restarts else self.reaper
        with self.database.write() as session:
            session.execute(update(Step).values(not_before=0.0))
            expired = self.reaper.sweep(session, self.now)
        for lease in expired:
            assert self.now - self.heard[lease.step_id] >= LEASE_S, "a lease that was renewed in time was taken away"
            assert self.held.pop(lease.step_id).fence == lease.fence
            self.streaks[lease.step_id] = self.streaks.get(lease.step_id, 0) + 1

    @rule(lease=taken, number=st.integers(0, 3), writes=st.booleans())
    def reaper_acts_late(self, lease: Lease, number: int, writes: bool) -> None:
        """It saw a step that nobody renewed, and acts when its holder has written, or given it back, meanwhile."""
        lease = self._pick("good", number, lease)
        with self.database.read() as session:
            seen = session.get_one(Step, lease.step_id)
        if seen.state != "running":
            return
        if writes:
            self.write(lease, "any", 0, 0, {"progress"})
        else:
            self.end(lease, "any", 0, "release")
        before = self._everything()
        with self.database.write() as session:
            assert self.reaper.expire(session, seen) is None
        assert before == self._everything()

    def teardown(self) -> None:
        """Everything is resumed, and work goes on undisturbed: then every job ends, and the database still makes sense."""
        if not self.to_the_end:
            with self.database.read() as session:
                check_histories(session)
            return
        with self.database.write() as session:
            for job in session.scalars(select(Job).where(Job.paused_by.is_not(None))).all():
                with contextlib.suppress(Conflict):  # it is being stopped
                    controls.resume(session, job, owner_of(session, job))
            for step in session.scalars(select(Step).where(Step.state == "running")).all():
                self.reaper.expire(session, step)
        self.held.clear()
        self._work()
        with self.database.write() as session:
            for job in session.scalars(select(Job).where(Job.state.in_(["failed", "cancelled"]))).all():
                controls.retry(session, job, owner_of(session, job), max_unfinished=len(self.accepted) + 1)
        self._work()
        with self.database.read() as session:
            assert set(session.scalars(select(Job.state))) <= {"succeeded"}, (
                "what is tried again without a fault succeeds"
            )
            assert set(session.scalars(select(Attempt.outcome))) <= ENDED
            check_histories(session)

    def _work(self) -> None:
        """Do all there is to do; then nothing is left open."""
        for _ in range(200):
            with self.database.write() as session:
                session.execute(update(Step).values(not_before=0.0))
            lease = self.claim("w1", prefer=False, cap=9)
            if not isinstance(lease, Lease):
                break
            self.end(lease, "any", 0, "finish")
        with self.database.read() as session:
            left = session.scalars(select(Job.id).where(Job.state.not_in(TERMINAL_JOB_STATES))).all()
            assert not left, "a job was forgotten"
            assert not session.scalars(select(Step.id).where(Step.state.not_in(TERMINAL_STEP_STATES))).all()


def owner_of(session: Session, job: Job) -> User:
    return session.get_one(User, job.owner_id)


def run(database: Database, examples: int, steps: int, *, to_the_end: bool = True, **more: Any) -> None:
    machine = type("JobsOnThisDatabase", (Jobs,), {"database": database, "to_the_end": to_the_end})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=int(os.environ.get("FADRM_MACHINE_EXAMPLES") or examples),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            **more,
        ),
    )


def test_nothing_is_lost_or_done_twice_on_sqlite() -> None:
    database = Database("sqlite://")  # in memory
    Base.metadata.create_all(database.engine)
    run(database, examples=20, steps=40)
    database.close()


@pytest.mark.postgres
def test_nothing_is_lost_or_done_twice_on_postgresql(postgres_database: Database) -> None:
    run(postgres_database, examples=5, steps=25)


# Guards of the transitions, each by a line that would be missed: the function, the line, and what
# stands there instead. Guards that another one covers, so that taking one away changes nothing, are not among them.
GUARDS: dict[str, tuple[Callable[..., Any], str, str]] = {
    "T1: a key gives the same job": (jobs.repeated, "if idempotency_key is None:", "if True:"),
    "T1: a user has so many jobs": (jobs.within_quota, "unfinished >= max_unfinished", "False"),
    "T2: a claim raises the fence": (claims.claim, "fence=Step.fence + 1", "fence=Step.fence"),
    "T2: what a step needs is whole": (claims.runnable, "        ~unmet,\n", ""),
    "T2: equal steps run once at a time": (claims.runnable, "        ~running_elsewhere,\n", ""),
    "T2: only what is queued is claimed": (claims.runnable, "Step.state == StepState.QUEUED,", ""),
    "T2: a paused job rests": (claims.runnable, "        Job.paused_by.is_(None),\n", ""),
    "T2: a user runs so many steps": (
        claims._claimable, "func.coalesce(running.c.count, 0) < max_running_per_user", "true()"
    ),
    "T3-T7: the fence is that of the claim": (leases._held, ", Step.fence == lease.fence", ""),
    "T3-T7: the step runs": (leases._held, "Step.state == StepState.RUNNING, ", ""),
    "T3-T7: who lost it is told so": (leases._write_as_holder, "written.rowcount == 0", "False"),
    "T4: a checkpoint ends a streak of crashes": (leases.record, 'values["crash_streak"] = 0', "pass"),
    "T6: a step that cannot be done ends its job": (jobs.stops, " or job.error is not None", ""),
    "T8: a late heartbeat wins against the reaper": (leases._held, "held if beat is None else", "held if True else"),
    "T8: a lease has its time": (Reaper.sweep, ">= self.lease_s", ">= 0.0"),
    "T8: the third crash is the last": (leases.crash, "streak >= max_crashes or ", ""),
    "T8: crashes are counted": (leases.crash, "step.crash_streak + 1", "1"),
    "T9, T10: what waits ends with its job": (jobs.settle, "    if stops(job):", "    if False:"),
    "T9: what runs is its holder's to end": (
        jobs.settle, "Step.job_id == job_id, Step.state == StepState.QUEUED", "Step.job_id == job_id"
    ),
    "T11: who asked is heard": (controls.cancel, "job.cancel_requested = True", "pass"),
    "events have no gap": (jobs.tell, "Job.last_seq + len(notes)", "Job.last_seq + len(notes) + 1"),
}  # fmt: skip


def crash_thrice(game: Jobs) -> None:
    """Until nothing is left: which step is claimed is for the queue to say."""
    while isinstance(lease := game.claim("w1", False, 9), Lease):
        game.end(lease, "good", 0, "crash")
        game.time_passes(1.0, False)


def crash_with_checkpoints(game: Jobs) -> None:
    """Each step leaves a checkpoint before every third crash, and so it never is the last."""
    for _ in range(6):
        lease = game.claim("w1", False, 9)
        assert isinstance(lease, Lease)
        if game.streaks.get(lease.step_id, 0) == 2:
            game.write(lease, "good", 0, 1, {"checkpoint"})
        game.end(lease, "good", 0, "crash")
        game.time_passes(1.0, False)


def pause_at_work(game: Jobs) -> None:
    """A job that is paused while a step of it runs has not come to rest, and must not begin another."""
    first = game.claim("w1", False, 9)
    game.end(first, "good", 0, "finish")
    game.claim("w1", False, 9)
    for which in range(3):
        game.control(which, "pause")
    while isinstance(game.claim("w2", False, 9), Lease):
        pass


# Guards that drawn games meet too seldom, and the game that meets them.
GAMES: dict[str, Callable[[Jobs], None]] = {
    "T2: a paused job rests": pause_at_work,
    "T4: a checkpoint ends a streak of crashes": crash_with_checkpoints,
    "T8: the third crash is the last": crash_thrice,
    "T8: crashes are counted": crash_thrice,
}
SEEN_AT_THE_END = {"T6: a step that cannot be done ends its job", "T9, T10: what waits ends with its job"}


# Missed within seconds: for every day. The others take longer to be found: `make chaos`.
SOON_MISSED = {
    *GAMES,
    "T1: a key gives the same job",
    "T2: a claim raises the fence",
    "T2: what a step needs is whole",
    "T2: equal steps run once at a time",
    "T2: only what is queued is claimed",
}
LISTED = [pytest.param(guard, marks=() if guard in SOON_MISSED else pytest.mark.chaos) for guard in GUARDS]


@pytest.mark.parametrize("game", dict.fromkeys(GAMES.values()), ids=lambda game: game.__name__)
def test_with_every_guard_the_games_go_well(game: Callable[[Jobs], None]) -> None:
    database = Database("sqlite://")
    Base.metadata.create_all(database.engine)
    play(game, database)
    database.close()


def play(game: Callable[[Jobs], None], database: Database) -> None:
    machine: Jobs = type("JobsOnThisDatabase", (Jobs,), {"database": database, "to_the_end": True})()
    machine.begin()
    game(machine)
    machine.teardown()


@pytest.mark.parametrize("guard", LISTED)
def test_a_guard_that_is_missing_is_missed(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without(*GUARDS[guard], monkeypatch)
    database = Database("sqlite://")
    Base.metadata.create_all(database.engine)
    caught = (AssertionError, SQLAlchemyError, LeaseLost, NoResultFound, ExceptionGroup, Flaky)
    try:
        with pytest.raises(caught):
            look(guard, database)
    finally:
        database.close()


def look(guard: str, database: Database) -> None:
    if guard in GAMES:
        play(GAMES[guard], database)
    else:
        end = guard in SEEN_AT_THE_END
        run(database, examples=200, steps=25, to_the_end=end, phases=[Phase.generate], report_multiple_bugs=False)


def without(function: Callable[..., Any], guard: str, instead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody who calls this function call one from which the guard was taken."""
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(guard) == 1, f"{function.__qualname__} has no `{guard}` any more: say what guards now"
    made: dict[str, Any] = {}
    code = compile(f"from __future__ import annotations\n{source.replace(guard, instead)}", __file__, "exec")
    exec(code, function.__globals__, made)
    [changed] = (value for name, value in made.items() if name == function.__name__)
    owner, _, method = function.__qualname__.rpartition(".")
    if owner:
        monkeypatch.setattr(function.__globals__[owner], method, changed)
        return
    for module in [module for name, module in sys.modules.items() if name.startswith("app.")]:
        for name in [name for name, value in vars(module).items() if value is function]:
            monkeypatch.setattr(module, name, changed)
