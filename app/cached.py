"""Steps that the store has already are ended by the server, so that a job of nothing else waits for no worker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import exists, select

from app import claims, leases
from app.claims import Holder, runnable
from app.models import Job, Step, StoredStep
from app.services import Services

SERVER = Holder(worker="server", host="", device="")
log = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """A step that could be claimed, and that the store should have."""

    id: int
    key: str


def end_cached(services: Services, tick: Callable[[], None] = lambda: None, damaged: set[Waiting] | None = None) -> int:
    """End what waits for nothing but a worker and is whole in the store, until nothing is left. Returns how many steps.

    What is missing or damaged is left to a worker, which makes it again. tick: called now and then, and may raise.
    damaged: what was found so before, to be written to: it is not read again.
    """
    damaged = set() if damaged is None else damaged
    ended, tried = 0, set(damaged)
    while found := [step for step in _waiting(services) if step not in tried]:  # each end lets others begin
        for step in found:
            tick()
            tried.add(step)
            try:
                if not _is_there(services, step):
                    continue
                if _is_damaged(services, step, tick):
                    damaged.add(step)
                else:
                    ended += _end(services, step)
            except (OSError, ValueError) as error:  # a worker will say the same, and of which step
                log.warning("step not read", extra={"step": step.id, "key": step.key, "error": str(error)})
    if ended:
        services.bell.ring()  # after the commits: workers may do what these made possible
    return ended


def _waiting(services: Services) -> list[Waiting]:
    """Asks the database alone: whether a bucket has each of many steps is not to be asked every few seconds."""
    known = exists().where(StoredStep.key == Step.key)
    query = select(Step.id, Step.key).join(Job, Job.id == Step.job_id).where(runnable(), known).order_by(Step.id)
    with services.database.read() as session:
        return [Waiting(*row) for row in session.execute(query)]


def _is_there(services: Services, step: Waiting) -> bool:
    """Whether the store has it, and its owner may have one more at work: before all its bytes are read."""
    if not services.store.is_whole(step.key):
        return False
    most = services.settings.max_running_per_user
    with services.database.read() as session:
        return claims.is_claimable(session, SERVER, only=step.id, max_running_per_user=most)


def _is_damaged(services: Services, step: Waiting, tick: Callable[[], None]) -> bool:
    """Bytes that are at hand are compared with their hashes, as a worker does."""
    return services.store.is_at_hand(step.key) and bool(services.store.damaged(step.key, tick=tick))


def _end(services: Services, step: Waiting) -> bool:
    """Claim and finish it in one transaction: nobody sees a step that the server holds."""
    manifest = services.store.manifest(step.key)
    most = services.settings.max_running_per_user
    with services.database.write() as session:
        lease = claims.claim(session, SERVER, only=step.id, max_running_per_user=most)
        if lease is None:
            return False
        leases.finish_whole(session, lease, manifest, cached=True)
    services.store.forget_work(step.key)
    return True
