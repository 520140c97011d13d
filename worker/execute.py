"""A worker's one task: claim a step, let an engine do it, write down how it ended; again, until there is none to claim."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import claims, leases, logs, orphans, sweeper
from app.claims import Holder, Room
from app.leases import Lease, LeaseLost
from app.machine import Process
from app.models import Job, JobState
from app.sent import uploads_of
from app.services import Services
from app.storage.bucket import BucketAway
from app.storage.remake import remake
from app.storage.room import refusal
from engine.errors import FULL, DiskFull, ErrorReport, OutOfMemory
from engine.events import Failed, Finished
from engine.store import Manifest
from worker.attempt import Attempt, Outcome
from worker.engines import Engines
from worker.gauge import Gauge
from worker.persist import UNWRITABLE, patiently
from worker.supervise import EngineProcess

LINGER_S = 5.0  # an engine whose job goes on elsewhere is kept so long: loading torch anew takes as much
LINGER_LOOK_S = 0.25
MOST_NAMES = 3  # of damaged files that are told
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class Stopped(Exception):
    """The worker is to end while no engine is at work."""


@dataclass(slots=True, kw_only=True)
class Carrier:
    """Carries steps, one at a time. Its engine stays for the next step of the same job."""

    services: Services
    holder: Holder
    engines: Engines
    gauge: Gauge | None = None  # None: memory is not looked at
    stop: Callable[[], bool] = lambda: False
    on_step: Callable[[int | None], None] = lambda _: None
    _engine: EngineProcess | None = None
    _engine_job: str = ""
    _starved: set[int] = field(default_factory=set)  # steps that had too little of this GPU's memory once, and go on

    def drain(self) -> int:
        """Carry steps until none can be claimed, or the worker is to stop. Returns how many."""
        carried = 0
        self._take_back_own()
        try:
            while (lease := self._claim()) is not None:
                self._carry(lease)
                self.services.bell.ring()  # what this step made possible may be for another worker
                carried += 1
        finally:
            self._drop_engine()
        return carried

    def _take_back_own(self) -> None:
        """Leases under this worker's name are from a life that ended badly: only one process bears it at a time."""
        reaper = sweeper.reaper(self.services.settings)
        try:
            for lease in orphans.take_back(self.services.database, reaper, worker=self.holder.worker):
                log.warning("own lease of an earlier life taken back", extra={"step": lease.step_id})
        except SQLAlchemyError as error:
            log.warning("database away", extra={"error": str(error)})

    def _claim(self) -> Lease | None:
        """The next step; with an engine at hand, wait a little for one of its job."""
        deadline = time.monotonic() + LINGER_S
        while not self.stop():
            try:
                lease, lingers = self._claim_once()
            except SQLAlchemyError as error:
                log.warning("database away: nothing claimed", extra={"error": str(error)})
                return None
            if lease is not None or not lingers or time.monotonic() >= deadline:
                return lease
            time.sleep(LINGER_LOOK_S)
        return None

    def _claim_once(self) -> tuple[Lease | None, bool]:
        prefer = self._engine_job if self._engine is not None else None
        if self.refusal() is not None or (self._engine is None and self.strangers()):
            return None, False
        room = self.room()
        with self.services.database.write() as session:
            lease = claims.claim(
                session,
                self.holder,
                room=room,
                prefer_job=prefer,
                max_running_per_user=self.services.settings.max_running_per_user,
            )
            if lease is not None or prefer is None:
                return lease, False
            job = session.get(Job, prefer)
            return None, job is not None and job.state in {JobState.QUEUED, JobState.RUNNING}

    def refusal(self) -> str | None:
        """Why this worker begins nothing, in words; None when it would."""
        if self.gauge is not None and self.gauge.is_gone():
            return f"the driver no longer tells of {self.holder.device} on {self.holder.host}"
        return refusal(self.services)

    def room(self) -> Room | None:
        """Memory for a step; None when the settings do not look at it, or nobody knows."""
        if self.gauge is None or not self.services.settings.match_memory:
            return None
        return self.gauge.room(self._engine.pid if self._engine else None)

    def strangers(self) -> list[Process]:
        """Other programs on this worker's GPU, for which it takes no steps: none where the settings let it be shared."""
        if self.gauge is None or self.services.settings.share_gpus or not self.gauge.read().processes:
            return []
        return self.gauge.strangers({pid for pid, _ in orphans.processes(self.services.database, self.holder.host)})

    def _carry(self, lease: Lease) -> None:
        """One step from claim to end. Whatever happens, the lease is given up or lost, and no engine works without one."""
        self.on_step(lease.step_id)
        with logs.about(job=lease.job_id, step=lease.step_id, title=lease.step.title, fence=lease.fence):
            self._carry_on(lease)

    def _carry_on(self, lease: Lease) -> None:
        log.info("step claimed")
        try:
            log.info("step ended", extra={"outcome": self._do(lease)})
        except LeaseLost:
            log.warning("lease lost: engine ended, nothing published")
            self._starved.discard(lease.step_id)
            self._drop_engine(at_once=True)
        except (Stopped, BucketAway) as error:  # no fault of the step's; none begins here until the bucket answers
            log.warning("step given back", extra={"reason": str(error)})
            with suppress(LeaseLost, SQLAlchemyError):
                self._write(partial(leases.release, lease=lease))
        except (OSError, ValueError, *UNWRITABLE) as error:
            log.exception("step not carried")
            self._drop_engine(at_once=True)
            self._crash(lease, _report(error))
        finally:
            self.services.store.trim()
            self.on_step(None)

    def _do(self, lease: Lease) -> str:
        store, key = self.services.store, lease.step.key
        damaged = self._remove_damaged(lease)
        if store.is_whole(key):
            self._finish(lease, store.manifest(key), cached=True)
            return "cached"
        if not all(map(store.is_whole, lease.step.needs.values())):
            again = partial(remake, lease=lease, is_whole=store.is_whole, damaged=damaged)
            return (
                "again" if self._write(partial(again, max_attempts=self.services.settings.max_attempts)) else "failed"
            )
        self._bring(lease)
        own = () if self._engine is None else (self._engine.pid,)
        orphans.kill(self.services.database, self.holder.host, key=key, spare=own)
        out = store.attempt(key, f"{lease.step_id}-{lease.fence}")
        try:
            return self._attempt(lease, out)
        finally:
            shutil.rmtree(out, ignore_errors=True)  # published, or nobody's

    def _remove_damaged(self, lease: Lease) -> dict[str, str]:
        """Look at the bytes of all that this step reads, and remove the steps where they are wrong: key -> files.

        The lease is kept meanwhile. Raises LeaseLost, Stopped.
        """
        store, found = self.services.store, {}
        keep = partial(self._keep, lease, [time.monotonic()])
        own = [lease.step.key] if store.is_at_hand(lease.step.key) else []
        for key in (*own, *lease.step.needs.values()):
            with suppress(FileNotFoundError):  # it is not there, or another worker removed it just now
                if files := store.damaged(key, tick=keep):
                    log.error("step damaged in the store, removed", extra={"key": key, "files": files})
                    found[key] = ", ".join(files[:MOST_NAMES])
                    store.remove(key)
        return found

    def _keep(self, lease: Lease, last: list[float]) -> None:
        """Renew the lease when it is time. last: when that was, to be written over. Raises LeaseLost, Stopped."""
        if self.stop():
            raise Stopped
        self._renew(lease, last)

    def _renew(self, lease: Lease, last: list[float]) -> None:
        if time.monotonic() - last[0] >= self.services.settings.heartbeat_s:
            last[0] = time.monotonic()
            self._write(partial(leases.record, lease=lease))

    def _attempt(self, lease: Lease, out: Path) -> Outcome:
        engine = self._engine_for(lease)
        attempt = Attempt(
            services=self.services,
            lease=lease,
            engine=engine,
            device=self.engines.seen_device,
            out=out,
            stop=self.stop,
        )
        outcome = attempt.run()
        match outcome:
            case Outcome.FINISHED:
                self._publish(lease, engine, out)
            case Outcome.FAILED:
                assert isinstance(engine.verdict, Failed)
                self._fail(lease, engine.verdict.error)
            case Outcome.CANCELLED:
                self._starved.discard(lease.step_id)
                self._write(partial(leases.cancelled, lease=lease))
            case Outcome.RELEASED:
                self._leave(lease)
                self._write(partial(leases.release, lease=lease))
            case Outcome.CRASHED:
                self._crash(lease, engine.obituary())
        return outcome

    def _bring(self, lease: Lease) -> None:
        """What the engine reads besides the steps that it needs: checkpoints, and what users sent. Raises BucketAway."""
        for upload_id in uploads_of(lease.step.params):
            self.services.store.upload(upload_id)
        self.services.store.bring_work(lease.step.key, partial(self._keep, lease, [time.monotonic()]))

    def _leave(self, lease: Lease) -> None:
        """Let another machine go on from the checkpoint; where that fails, it begins anew."""
        try:
            self.services.store.keep_work(lease.step.key, partial(self._renew, lease, [time.monotonic()]))
        except OSError as error:
            log.warning("checkpoint not left for others", extra={"step": lease.step_id, "error": str(error)})

    def _publish(self, lease: Lease, engine: EngineProcess, out: Path) -> None:
        """First the files, then the word: a step that is said to be whole is. Raises FileNotFoundError, OSError."""
        assert isinstance(engine.verdict, Finished)
        keep = partial(self._keep, lease, [time.monotonic()])
        manifest = self.services.store.publish(lease.step.key, out, keep)
        self._finish(lease, manifest, cached=False)

    def _finish(self, lease: Lease, manifest: Manifest, *, cached: bool) -> None:
        self._starved.discard(lease.step_id)
        self._write(partial(leases.finish_whole, lease=lease, manifest=manifest, cached=cached))
        self.services.store.forget_work(lease.step.key)

    def _fail(self, lease: Lease, error: ErrorReport) -> None:
        """It cannot be done; but a disk that is full may have room again when it is tried again after a pause, and what an
        engine's earlier steps left on a GPU, or a neighbour took there, may be gone for a new engine: once."""
        if starved := self._is_of_a_gpus_memory(error):
            self._drop_engine()
        if starved and lease.step_id not in self._starved:
            self._starved.add(lease.step_id)
            self._crash(lease, error)
        elif error.code == DiskFull.code:
            self._crash(lease, error)
        else:
            self._starved.discard(lease.step_id)
            self._write(partial(leases.fail, lease=lease, error=error))

    def _is_of_a_gpus_memory(self, error: ErrorReport) -> bool:
        """Whether a GPU had too little memory for a step."""
        return error.code == OutOfMemory.code and self.engines.device != "cpu"

    def _crash(self, lease: Lease, error: ErrorReport) -> None:
        """Let the step be tried again, or given up after too many crashes. Fails in silence: the lease runs out by itself."""
        settings = self.services.settings
        log.warning("attempt crashed", extra={"step": lease.step_id, "code": error.code, "sentence": error.message})
        with suppress(LeaseLost, SQLAlchemyError):
            self._write(
                partial(
                    leases.crash,
                    lease=lease,
                    error=error,
                    max_crashes=settings.max_crashes,
                    max_attempts=settings.max_attempts,
                )
            )

    def _write(self, action: Callable[[Session], Answer]) -> Answer:
        return patiently(self.services.database, action, stop=self.stop)

    def _engine_for(self, lease: Lease) -> EngineProcess:
        """The engine that has this job's libraries loaded, or a new one."""
        if self._engine is not None and self._engine_job == lease.job_id and not self._engine.is_over:
            return self._engine
        self._drop_engine()
        self._engine, self._engine_job = self.engines.start(), lease.job_id
        return self._engine

    def _drop_engine(self, *, at_once: bool = False) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if at_once:
            engine.kill()
        else:
            engine.close()


def _report(error: Exception) -> ErrorReport:
    """An error of this worker, not of the engine, for the user."""
    if isinstance(error, OSError) and error.errno in FULL:
        return DiskFull(f"No space is left on the disk: {error.filename or error.strerror}.").report
    return ErrorReport(
        code="internal_error",
        message=f"The worker could not carry the step: {error}"[:1000],
        hint="The worker's log says more.",
    )
