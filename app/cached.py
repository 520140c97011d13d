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


def end_cached(services: Services, tick: Callable[[], None] = lambda: None) -> int:
    """End what waits for nothing but a worker and is whole in the store, until nothing is left. Returns how many steps.

    What is missing or damaged is left to a worker, which makes it again. tick: called now and then, and may raise.
    """
    ended, tried = 0, set[Waiting]()
    while found := [step for step in _waiting(services) if step not in tried]:  # each end lets others begin
        for step in found:
            tick()
            tried.add(step)
            try:
                ended += _is_sound(services, step, tick) and _end(services, step)
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


def _is_sound(services: Services, step: Waiting, tick: Callable[[], None]) -> bool:
    """Whether the store has it. Bytes that are at hand are compared with their hashes, as a worker does."""
    store = services.store
    if not store.is_whole(step.key):
        return False
    return not (store.is_at_hand(step.key) and store.damaged(step.key, tick=tick))


def _end(services: Services, step: Waiting) -> bool:
    """Claim and finish it in one transaction: nobody sees a step that the server holds."""
    manifest = services.store.manifest(step.key)
    most = services.settings.max_running_per_user
    with services.database.write() as session:
        lease = claims.claim(session, SERVER, only=step.id, max_running_per_user=most)
        if lease is None:
            return False
        leases.finish(
            session,
            lease,
            result=manifest.result,
            seconds=manifest.seconds,
            cached=True,
            size_bytes=manifest.size_bytes,
        )
    services.store.forget_work(step.key)
    return True
