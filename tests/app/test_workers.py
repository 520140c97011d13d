"""Workers that are drained, whose GPU is taken, or that are too small: who takes a step, and what a job says meanwhile."""

from __future__ import annotations

import io

import httpx
import pytest
from fastapi.testclient import TestClient
from rich.console import Console
from sqlalchemy import select, update
from typer.testing import CliRunner

from app import claims, cli, cli_workers, views, workers
from app.claims import Room
from app.jobs import Wish
from app.main import create_app
from app.models import AuditEvent, Job, Step, Worker
from engine import events
from fadrm import Client
from tests.app.world import HOLDER, Person, World, chain

GIB = 2**30
GONE = "the driver no longer tells of cuda:0 on gpu-3"
STRANGER = {"pid": 40170, "name": "python3", "used_bytes": 185 * 2**20}


def weigh(world: World, host: int, device: int) -> None:
    with world.services.database.write() as session:
        session.execute(update(Step).values(host_bytes=host, device_bytes=device))


def set_worker(world: World, **values: object) -> None:
    with world.services.database.write() as session:
        session.execute(update(Worker).values(**values))


def is_taken(world: World, room: Room | None) -> bool:
    """Whether a worker with this room would be given a step."""
    with world.services.database.read() as session:
        found = claims.is_claimable(session, HOLDER, room=room)
    with world.services.database.write() as session:
        lease = claims.claim(session, HOLDER, room=room)
        session.rollback()
    assert found == (lease is not None)
    return found


def sentence(world: World, person: Person) -> str:
    with world.services.database.read() as session:
        found = session.scalars(select(Job).where(Job.owner_id == person.user.id)).all()
        return views.summaries(session, found)[0].sentence


@pytest.fixture
def any_waiting(any_world: World) -> World:
    """A job that waits, and a worker on the CPU."""
    any_world.worker_online()
    any_world.submit(any_world.person("ann"), chain("a", 2), name="A")
    return any_world


@pytest.mark.parametrize(
    ("room", "fits"),
    [
        (None, True),
        (Room(3 * GIB, None), True),  # a CPU's tensors lie in the host's memory
        (Room(3 * GIB - 1, None), False),
        (Room(GIB, 2 * GIB), True),
        (Room(GIB, 2 * GIB - 1), False),
        (Room(GIB - 1, 80 * GIB), False),
    ],
)
def test_a_step_goes_to_a_worker_that_has_the_memory(any_waiting: World, room: Room | None, fits: bool) -> None:
    weigh(any_waiting, GIB, 2 * GIB)
    assert is_taken(any_waiting, room) == fits


def test_a_step_of_which_nobody_knows_what_it_takes_goes_to_any_worker(any_waiting: World) -> None:
    assert is_taken(any_waiting, Room(1, None)) and is_taken(any_waiting, Room(1, 1))


def test_a_small_step_passes_a_large_one_that_does_not_fit(any_waiting: World) -> None:
    weigh(any_waiting, GIB, 80 * GIB)
    bob = any_waiting.person("bob")
    later = any_waiting.submit(bob, chain("b", 2), name="B")
    with any_waiting.services.database.write() as session:
        lease = claims.claim(session, HOLDER, room=Room(4 * GIB, None))
    assert lease is not None and lease.job_id == later.id


def test_a_drained_worker_takes_nothing_and_gives_back_what_it_has(any_waiting: World) -> None:
    lease, admin = any_waiting.claim(), any_waiting.person("admin").user
    assert lease is not None
    with any_waiting.services.database.write() as session:
        session.execute(update(Step).where(Step.id == lease.step_id).values(worker=HOLDER.worker))
        workers.drain(session, HOLDER.worker, admin)
    assert any_waiting.tell(lease, events.Checkpointed(done=1)) == Wish.PAUSE
    any_waiting.release(lease)
    assert not is_taken(any_waiting, None)
    assert sentence(any_waiting, any_waiting.person("ann")) == (
        "Waiting: every worker is being drained, as admin asked."
    )
    with any_waiting.services.database.write() as session:
        workers.resume(session, HOLDER.worker, admin)
    assert is_taken(any_waiting, None)
    with any_waiting.services.database.read() as session:
        actions = set(session.scalars(select(AuditEvent.action)))
    assert actions >= {"worker.drain", "worker.resume"}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (
            {"host_free_bytes": 7 * GIB, "host_total_bytes": 8 * GIB},
            "no connected worker is large enough: “Step a-0” takes about 13 GB of memory, and the largest has 8.0 GB",
        ),
        (
            {"host_free_bytes": 7 * GIB, "host_total_bytes": 16 * GIB},
            "not enough memory is free: “Step a-0” takes about 13 GB of memory, and at most 7.0 GB are free",
        ),
        (
            {"host_free_bytes": 9 * GIB, "device_total_bytes": 8 * GIB, "device_free_bytes": 8 * GIB},
            "no connected worker is large enough: “Step a-0” takes about 12 GB on a GPU, and the largest has 8.0 GB",
        ),
        (
            {"host_free_bytes": GIB // 2, "device_total_bytes": 80 * GIB, "device_free_bytes": 80 * GIB},
            "not enough memory is free: “Step a-0” takes about 12 GB on a GPU, and about 1.0 GB of the machine’s own",
        ),
        ({"refuses": GONE}, GONE),
        ({"strangers": [STRANGER]}, "other programs compute on the GPU of every worker (python3, process 40170)"),
    ],
)
def test_a_job_says_why_no_worker_takes_its_step(world: World, told: dict[str, object], said: str) -> None:
    world.worker_online()
    ann = world.person("ann")
    world.submit(ann, chain("a", 2), name="A")
    weigh(world, GIB, 12 * GIB)
    set_worker(world, **told)
    assert sentence(world, ann) == f"Waiting: {said}."


def test_of_workers_that_take_nothing_the_one_with_a_stranger_is_told(world: World) -> None:
    world.worker_online()
    ann = world.person("ann")
    world.submit(ann, chain("a", 2), name="A")
    set_worker(world, refuses=GONE)
    with world.services.database.write() as session:
        other = {"host": "test", "pid": 2, "device": "cuda:1", "device_name": "H200", "version": "1"}
        session.add(Worker(id="test:cuda:1:0", strangers=[STRANGER], **other))
    assert sentence(world, ann) == (
        "Waiting: other programs compute on the GPU of every worker (python3, process 40170)."
    )


def test_where_one_worker_can_the_job_is_in_line_as_ever(world: World) -> None:
    world.worker_online()
    ann = world.person("ann")
    world.submit(ann, chain("a", 2), name="A")
    weigh(world, GIB, 12 * GIB)
    set_worker(world, host_free_bytes=14 * GIB, host_total_bytes=16 * GIB)
    assert sentence(world, ann) == "Waiting for a free worker: next in line."


def test_why_a_worker_takes_nothing_is_told_wherever_workers_are(client: TestClient, world: World) -> None:
    world.worker_online()
    set_worker(world, refuses=GONE)
    assert client.get("/api/v1/workers").json()[0]["refuses"] == GONE
    assert f"takes no steps: {GONE}" in client.get("/workers").text
    assert "0 of them take steps" in client.get("/readyz").text


def test_only_administrators_drain_by_the_api(client: TestClient, world: World) -> None:
    world.worker_online()
    url = "/api/v1/workers/test:cpu:0"
    assert client.post(f"{url}/drain").status_code == 403
    admin = world.person("admin").headers
    for _ in range(2):
        assert client.post(f"{url}/drain", headers=admin).json()["draining_by"] == "admin"
    assert client.get("/api/v1/workers").json()[0]["draining_by"] == "admin"
    assert client.post(f"{url}/resume", headers=admin).json()["draining_by"] is None
    assert client.post("/api/v1/workers/nobody/drain", headers=admin).status_code == 404


def test_workers_are_listed_and_drained_by_command(
    anonymous: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(request: httpx.Request) -> httpx.Response:
        answer = anonymous.request(request.method, request.url.path, headers=dict(request.headers))
        return httpx.Response(answer.status_code, json=answer.json())

    world.worker_online()
    set_worker(world, refuses=GONE)
    token, transport = world.person("admin").token, httpx.MockTransport(forward)
    monkeypatch.setattr(cli_workers, "connect", lambda: Client("http://testserver", token, transport=transport))
    run = CliRunner()
    assert run.invoke(cli.app, ["drain"]).exit_code == 2
    monkeypatch.setattr(cli_workers, "out", Console(width=200, force_terminal=False, file=(told := io.StringIO())))
    for words in (["drain", "--all"], ["workers"], ["drain", "test:cpu:0", "--undo"]):
        assert run.invoke(cli.app, words).exit_code == 0
    first, _, row, last = told.getvalue().splitlines()
    assert first == "test:cpu:0 takes no steps" and last == "test:cpu:0 takes steps"
    assert f"drained by admin; takes no steps: {GONE}" in row


@pytest.mark.parametrize(("name", "is_shown"), [("ann", True), ("admin", True), ("bob", False)])
def test_whose_step_a_worker_has_is_told_to_those_who_see_the_job(
    any_waiting: World, name: str, is_shown: bool
) -> None:
    lease, person = any_waiting.claim(), any_waiting.person(name)
    assert lease is not None
    set_worker(any_waiting, step_id=lease.step_id)
    with TestClient(create_app(any_waiting.services, background=False), headers=person.headers) as client:
        [told] = client.get("/api/v1/workers").json()
        page = client.get("/workers").text
    assert (told["step"], told["job_id"]) == (("Step a-0", lease.job_id) if is_shown else ("somebody else’s job", None))
    assert (lease.job_id in page) == ("Step a-0" in page) == is_shown
