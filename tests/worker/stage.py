"""The stage on which worker tests play: a real database, a real store, real processes, and the invariants after each play."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from app import controls, jobs, machine
from app.bell import Bell
from app.claims import Holder
from app.db import Base, Database
from app.ids import new_id
from app.models import TERMINAL_JOB_STATES, TERMINAL_STEP_STATES, Attempt, Event, Job, JobState, Step, User
from app.services import Services, store_of
from app.settings import Settings
from engine import plan as engine_plan
from engine.spec import JobSpec, sha256_of
from worker.engines import Engines
from worker.execute import Carrier

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCRIPTED = [sys.executable, str(HERE / "scripted_engine.py")]
QUICK: dict[str, Any] = {"heartbeat_s": 0.1, "self_fence_s": 4.0, "lease_s": 6.0, "sweep_s": 0.5, "grace_s": 3.0}


def scripted(name: str, *, needs: Mapping[str, engine_plan.Step] | None = None, **params: Any) -> engine_plan.Step:
    """A step for the scripted engine. params: see scripted_engine.py."""
    keys = {role: step.key for role, step in (needs or {}).items()}
    key = sha256_of([name, params, keys])
    return engine_plan.Step(
        key=key, kind=engine_plan.StepKind.RECOVER, title=name, params=params, needs=keys, flop=0.0, size_bytes=0
    )


class Stage:
    """Services of one test, and what it asks of them again and again."""

    def __init__(self, home: Path, database_url: str, redis_url: str = "", **settings: Any) -> None:
        self.settings = Settings(home=home, database_url=database_url, redis_url=redis_url, **(QUICK | settings))
        self.database = Database(database_url)
        Base.metadata.create_all(self.database.engine)
        self.store = store_of(self.settings)
        self.services = Services(
            settings=self.settings, database=self.database, store=self.store, bell=Bell(self.settings.redis_url)
        )
        self.processes: list[subprocess.Popen[str]] = []
        with self.database.write() as session:
            if session.get(User, "usr_1") is None:  # else it goes on with what another stage left
                session.add(User(id="usr_1", name="ada", role="member"))

    def submit(self, *steps: engine_plan.Step) -> str:
        """A job of these steps."""
        plan = engine_plan.Plan(steps=steps, rows=(), package=steps[-1].key)
        with self.database.write() as session:
            owner = session.get_one(User, "usr_1")
            job, _ = jobs.create(session, owner=owner, name=new_id("test"), spec=JobSpec(), plan=plan)
        self.services.bell.ring()
        return job.id

    def cancel(self, job_id: str) -> None:
        with self.database.write() as session:
            controls.cancel(session, session.get_one(Job, job_id), session.get_one(User, "usr_1"))

    def carrier(self, name: str = "w0", *, stop: Callable[[], bool] = lambda: False, host: str = "here") -> Carrier:
        """A worker's loop in this process."""
        return Carrier(
            services=self.services,
            holder=Holder(worker=f"{host}:cpu:{name}", host=host, device="cpu"),
            engines=Engines(device="cpu", threads=1, command=SCRIPTED),
            stop=stop,
        )

    def worker(
        self, app: str = "tests.worker.scripted_app", *, pool: str = "solo", **environment: str
    ) -> subprocess.Popen[str]:
        """A real Celery worker."""
        words = ["-A", app, "worker", "-P", pool, "--without-gossip", "--without-mingle", "-l", "INFO"]
        with (self.settings.home / f"worker-{len(self.processes)}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *words],
                env=self.environment() | environment,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        self.processes.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """The environment of a process of this service."""
        values = self.settings.model_dump(include=self.settings.model_fields_set, mode="json")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FADRM_")}
        return kept | {f"FADRM_{name.upper()}": str(value) for name, value in values.items()}

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.services.close()

    # What is there to see.

    def job(self, job_id: str) -> Job:
        with self.database.read() as session:
            return session.get_one(Job, job_id)

    def step(self, step: engine_plan.Step) -> Step:
        with self.database.read() as session:
            return session.scalars(select(Step).where(Step.key == step.key)).one()

    def events(self, job_id: str) -> list[Event]:
        with self.database.read() as session:
            return jobs.events_after(session, [job_id], {}, limit=100_000)

    def attempts(self) -> list[Attempt]:
        with self.database.read() as session:
            return list(session.scalars(select(Attempt).order_by(Attempt.step_id, Attempt.fence)))

    def ran(self, what: str = "end") -> list[dict[str, Any]]:
        """What engines noted: who began and ended which step."""
        path = self.store.root / "ran.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [note for line in lines if (note := json.loads(line))["what"] == what]

    def log(self, index: int = 0) -> str:
        return (self.settings.home / f"worker-{index}.log").read_text()

    def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not so within {timeout_s} s; worker says:\n{self._last_words()}"
            time.sleep(0.02)

    def until_ended(self, *job_ids: str, timeout_s: float = 90.0) -> list[JobState]:
        self.until(lambda: all(self.job(job_id).state in TERMINAL_JOB_STATES for job_id in job_ids), timeout_s)
        return [self.job(job_id).state for job_id in job_ids]

    def until_done(self, step: engine_plan.Step, done: int = 1) -> None:
        """Wait until a step has got so far."""
        self.until(lambda: self.step(step).done >= done)

    def engine_pids(self) -> list[int]:
        return [row.pid for row in self.attempts() if row.pid]

    def hurry(self) -> None:
        """Let no step wait for its pause after a crash."""
        with self.database.write() as session:
            session.execute(update(Step).where(Step.not_before > 0.0).values(not_before=0.0))

    def _last_words(self) -> str:
        return "\n".join(path.read_text()[-3000:] for path in self.settings.home.glob("worker-*.log"))

    # What must always be so.

    def check(self) -> None:
        """I3 to I11, as far as a worker can break them, once all is over."""
        with self.database.read() as session:
            for job in session.scalars(select(Job)):
                self._check_job(job, jobs.events_after(session, [job.id], {}, limit=100_000))
            open_steps = session.scalar(select(func.count()).where(Step.state.not_in(TERMINAL_STEP_STATES)))
            assert open_steps == 0
            for step in session.scalars(select(Step).where(Step.state == "succeeded")):
                assert self.store.is_whole(step.key)
                assert not (self.store.root / "work" / step.key).exists()
        self.until(lambda: not self.living_engines(), 5.0)

    def living_engines(self) -> list[int]:
        return [row.pid for row in self.attempts() if row.pid and machine.started(row.pid) == row.pid_started]

    @staticmethod
    def _check_job(job: Job, events: Sequence[Event]) -> None:
        assert job.state in TERMINAL_JOB_STATES
        assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
        ends = [event for event in events if event.kind == "job" and event.data["state"] in TERMINAL_JOB_STATES]
        assert len(ends) == 1 and ends[0].seq == job.last_seq
        fences: dict[int, int] = {}
        ended: set[int] = set()
        for event in events:
            if event.step_id is None:
                continue
            assert event.fence >= fences.get(event.step_id, 0), "an older attempt wrote after a newer one"
            assert event.step_id not in ended, "a step went on after its end"
            fences[event.step_id] = event.fence
            if event.kind == "step" and event.data["state"] in TERMINAL_STEP_STATES:
                ended.add(event.step_id)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
