"""A small world for the app's tests: people, jobs, and a worker that only pretends to compute."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app import auth, claims, jobs, leases
from app.claims import Holder
from app.jobs import Wish
from app.leases import Lease
from app.models import Job, Step, User, Worker
from app.services import Services
from engine import events
from engine.errors import ErrorReport
from engine.methods import Fadrm
from engine.plan import Plan, StepKind
from engine.plan import Step as PlanStep
from engine.sources import Digits
from engine.spec import Evaluation, JobSpec, Labels, Teacher
from engine.store import Manifest, write_manifest

HOLDER = Holder(worker="test:cpu:0", host="test", device="cpu")
PNG = b"\x89PNG\r\n\x1a\n made up"
ITERATIONS = 4

SPEC = JobSpec(
    dataset=Digits(resolution=8),
    ipc=1,
    method=Fadrm(budgets=(2, 2)),
    teachers=(Teacher(network="convnet3_w32", epochs=1),),
    labels=Labels(epochs=2),
    evaluation=Evaluation(students=("convnet3_w32",), runs=2, baselines=("random",), labels=("soft",), every=1),
    flip=False,
)


def spec_body(**changes: Any) -> dict[str, Any]:
    """A small spec as JSON."""
    return SPEC.model_dump(mode="json") | changes


def chain(name: str, length: int = 2) -> Plan:
    """A plan of steps in a row, whose keys begin with a name. The last one is the package."""
    keys = [f"{name}-{index}" for index in range(length)]
    kinds = [StepKind.PREPARE] + [StepKind.RECOVER] * (length - 2) + [StepKind.PACKAGE]
    steps = [
        PlanStep(
            key=key,
            kind=kind,
            title=f"Step {key}",
            params={},
            needs={"before": keys[index - 1]} if index else {},
            flop=1e9,
            size_bytes=10,
        )
        for index, (key, kind) in enumerate(zip(keys, kinds[-length:], strict=True))
    ]
    return Plan(steps=tuple(steps), rows=(), package=keys[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A user and the header that lets them in."""

    user: User
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(slots=True, kw_only=True)
class World:
    """Services, and those who use them."""

    services: Services
    people: dict[str, Person] = field(default_factory=dict)

    def person(self, name: str, role: str = "member") -> Person:
        """A user with an API token; the same one for the same name."""
        if name not in self.people:
            with self.services.database.write() as session:
                user = auth.bootstrap(session) if name == "admin" else auth.add_user(session, name, role)
                _, token = auth.api_token(session, user, "tests")
            self.people[name] = Person(user=user, token=token)
        return self.people[name]

    def submit(self, owner: Person, plan: Plan, *, name: str = "a job", key: str | None = None) -> Job:
        """A job with a made-up plan, past the API."""
        with self.services.database.write() as session:
            job, _ = jobs.create(session, owner=owner.user, name=name, spec=SPEC, plan=plan, idempotency_key=key)
        return job

    def claim(self, holder: Holder = HOLDER) -> Lease | None:
        """A step to work on."""
        with self.services.database.write() as session:
            return claims.claim(session, holder)

    def tell(self, lease: Lease, *told: events.Event, blobs: dict[str, str] | None = None) -> Wish:
        """Events of a step; what is wanted of it."""
        with self.services.database.write() as session:
            return leases.record(session, lease, told, blobs)

    def finish(
        self,
        lease: Lease,
        result: dict[str, Any] | None = None,
        *,
        cached: bool = False,
        size_bytes: int | None = None,
    ) -> None:
        """A step is whole."""
        with self.services.database.write() as session:
            leases.finish(session, lease, result=result or {}, seconds=1.5, cached=cached, size_bytes=size_bytes)

    def fail(self, lease: Lease, message: str = "It cannot be done.") -> None:
        """A step cannot be done."""
        with self.services.database.write() as session:
            leases.fail(session, lease, ErrorReport(code="nan_loss", message=message, hint="Lower it."))

    def release(self, lease: Lease) -> None:
        """A step is given back."""
        with self.services.database.write() as session:
            leases.release(session, lease)

    def job(self, job_id: str) -> Job:
        """A job's row as it is now."""
        with self.services.database.read() as session:
            return session.get_one(Job, job_id)

    def steps(self, job_id: str) -> list[Step]:
        """Its steps."""
        with self.services.database.read() as session:
            return jobs.steps_of(session, job_id)

    def count(self, table: type[Any]) -> int:
        """How many rows there are."""
        with self.services.database.read() as session:
            return len(session.scalars(select(table)).all())

    def worker_online(self) -> None:
        """Somebody who could work."""
        with self.services.database.write() as session:
            session.merge(Worker(id="test:cpu:0", host="test", pid=1, device="cpu", device_name="A CPU", version="1"))

    def work(self, limit: int = 1000) -> int:
        """Do all there is to do, as a worker would; how many steps."""
        for done in range(limit):
            lease = self.claim()
            if lease is None:
                return done
            self.perform(lease)
        return limit

    def perform(self, lease: Lease) -> None:
        """One step, with everything that such a step tells and leaves."""
        for told, blobs in self._story(lease):
            self.tell(lease, told, blobs=blobs)
        result = RESULTS.get(lease.step.kind, {})
        self.finish(lease, result, size_bytes=self._publish(lease, result).size_bytes)

    def _story(self, lease: Lease) -> Iterator[tuple[events.Event, dict[str, str]]]:
        kind, store = lease.step.kind, self.services.store
        yield events.Started(total=ITERATIONS, unit="iterations"), {}
        if kind == StepKind.RECOVER:
            for x in range(ITERATIONS):
                yield events.Metric(x=x, values={"recover.loss": 2.0 - x / 10, "recover.loss_bn": 1.0}), {}
            yield events.Injection(x=2, alpha=0.5, size_from=8, size_to=8), {}
            sheet = events.Preview(
                x=2, total=ITERATIONS, file="sheet.png", columns=1, tile=8, labels=[3], names=["3 · ipc 1"]
            )
            yield sheet, {"sheet.png": store.put_blob(PNG + lease.step.key.encode())}
        yield events.Checkpointed(done=2), {}
        yield events.Progress(done=ITERATIONS, total=ITERATIONS, unit="iterations"), {}
        yield events.Log(message="All is well"), {}

    def _publish(self, lease: Lease, result: dict[str, Any]) -> Manifest:
        store, step = self.services.store, lease.step
        folder = store.attempt(step.key, lease.fence)
        if step.kind == StepKind.PACKAGE and step.params.get("ipc") != step.params.get("spec", {}).get("ipc"):
            (folder / "nested.zip").write_bytes(b"PK")
        elif step.kind == StepKind.PACKAGE:
            (folder / "distilled set.zip").write_bytes(bytes(range(256)) * 40)
            (folder / "card.md").write_text("# A card\n")
        elif step.kind == StepKind.EXPORT:
            (folder / f"{step.params['form']}-{step.params['ipc']}").write_bytes(b"exported")
        facts: dict[str, Any] = {"key": step.key, "kind": step.kind, "params": step.params, "needs": step.needs}
        write_manifest(folder, **facts, result=result, environment={}, seconds=1.5)
        return store.publish(step.key, folder)


RESULTS: dict[str, dict[str, Any]] = {
    StepKind.PREPARE: {"num_classes": 10, "train_images": 1437, "test_images": 360},
    StepKind.TEACH: {"network": "convnet3_w32", "top1_pct": 97.5, "epochs": 1, "sha256": "0" * 64},
    StepKind.EVALUATE: {"top1_last_pct": 90.0, "top1_best_pct": 91.0},
}


def damage(path: Path) -> None:
    """Write over the second page of a database file, which belongs to a table."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x2a" * 4096)


def files_of(folder: Path) -> set[str]:
    """Everything in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
