"""`fadrm up` as a user starts it: real processes, which are killed, counted, and gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from app import leases, machine, redis_server, up
from app.children import Child
from app.claims import Holder
from app.db import Database
from app.settings import Settings
from app.trouble import CannotStart
from fadrm.connection import read as read_connection
from fadrm.uploading import UPLOADS_FILE
from tests.app.conftest import made_of
from tests.app.running import Running
from tests.app.world import chain

pytestmark = pytest.mark.redis


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(*words: str, home: Path = tmp_path / "home", **environment: str) -> Running:
        running.append(Running(home, *words, **environment))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)
        one._reader.join()


@pytest.fixture
def server_of() -> Iterator[Callable[[Settings], up.Server]]:
    """Makes a server that starts nothing by itself."""
    with up.open_port("127.0.0.1", 0) as listener:
        console = Console(quiet=True)
        yield lambda settings: up.Server(
            settings=settings, host="127.0.0.1", listener=listener, devices=[], console=console
        )


@pytest.fixture(scope="module")
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_everything_comes_up_stays_up_and_leaves_nothing_behind(start: Callable[..., Running], taken_port: int) -> None:
    running = start("--port", str(taken_port), "--workers", "1")
    url = running.until_serving()
    home = running.home
    assert f"Port {taken_port} is taken" in running.told
    for what in ("data", "redis", "worker", "api"):
        assert f"✔ {what}" in running.told
    for path in (home, home / "run"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (home / "cli.json", home / "secret", home / "run" / "redis.conf", home / "run" / "redis.url"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    second = start()
    assert second.process.wait(120) == 1
    second._reader.join()
    assert "running on" in second.told and str(running.process.pid) in second.told

    connection = read_connection(home)
    assert connection is not None and connection.url == url
    ready = httpx.get(f"{url}/readyz", trust_env=False)
    running.until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
    assert set(ready.json()["checks"]) >= {"database", "redis", "workers"}

    before = running.pids()
    assert sorted(before) == ["redis-0", "serve-0", "worker.tasks-0"]
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    running.until(lambda: len(running.pids()) == 3 and not set(running.pids().values()) & set(before.values()))
    running.until(lambda: _is_ready(url))
    after = running.pids()
    assert running.told.count("starting it again") == 3

    running.end(signal.SIGKILL)
    running.until_gone(before | after)

    again = start("--workers", "1")  # the lock went with it
    again.until_serving()
    renewed = read_connection(home)
    assert renewed is not None and renewed.token == connection.token
    children = again.pids()
    began = time.monotonic()
    assert again.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 10
    again.until_gone(children)
    assert not (home / "run" / "redis.url").exists()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_port_is_held_so_that_no_other_server_answers_in_its_place() -> None:
    with up.open_port("127.0.0.1", 0) as held:
        port = held.getsockname()[1]
        with up.open_port("127.0.0.1", port) as other:
            assert other.getsockname()[1] != port


def test_a_process_that_does_not_stay_up_ends_all_loudly(
    tmp_path: Path, server_of: Callable[[Settings], up.Server]
) -> None:
    words = ["sh", "-c", "echo no such thing >&2; exit 7"]
    child = Child(name="api", command=words, environment=os.environ, log=tmp_path / "api.log")
    server = server_of(Settings(home=tmp_path, grace_s=1))
    server.children.append(child)
    with pytest.raises(CannotStart, match=r"ended 5 times within 60 s(.|\n)*no such thing"):
        server.keep_alive()
    server.end()


@pytest.mark.parametrize("is_shared", [True, False])
def test_what_runs_is_left_to_its_worker_unless_the_database_lies_in_the_locked_folder(
    sqlite_database: Database, tmp_path: Path, server_of: Callable[[Settings], up.Server], is_shared: bool
) -> None:
    world = made_of(sqlite_database, tmp_path)
    job = world.submit(world.person("owner"), chain("a"))
    lease = world.claim(Holder(worker="another", host=machine.hostname(), device="cpu"))
    assert lease is not None
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as engine:
        with sqlite_database.write() as session:
            leases.set_process(session, lease, pid=engine.pid, pid_started=machine.started(engine.pid) or 0.0)
        url = sqlite_database.engine.url.render_as_string() if is_shared else ""
        settings = Settings(home=tmp_path, database_url=url)
        server_of(settings).prepare()
        time.sleep(0.1)
        assert (engine.poll() is None) == is_shared
        assert (world.steps(job.id)[0].state == "running") == is_shared
        engine.kill()


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    mode = tmp_path.stat().st_mode
    with pytest.raises(CannotStart, match="other things"):
        up.make_home(tmp_path)
    assert tmp_path.stat().st_mode == mode
    up.make_home(tmp_path / "new")
    (tmp_path / "new" / ".lock").touch()
    up.make_home(tmp_path / "new")


def test_a_home_that_a_client_used_before_is_taken(tmp_path: Path) -> None:
    (tmp_path / UPLOADS_FILE).write_text("{}")
    up.make_home(tmp_path)


def test_other_names_are_asked_for_before_others_are_let_in(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="FADRM_HOSTS"):
        up.check_host(Settings(home=tmp_path), "0.0.0.0")
    up.check_host(Settings(home=tmp_path, hosts=("127.0.0.1", "gpu-box.lab")), "0.0.0.0")
    up.check_host(Settings(home=tmp_path), "127.0.0.1")


def test_workers_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [machine.Device(id=f"cuda:{index}", name="H200") for index in range(2)]
    monkeypatch.setattr(machine, "gpus", lambda: two)
    assert [device.id for device in up.choose_devices(None)] == ["cuda:0", "cuda:1"]
    assert [device.id for device in up.choose_devices(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert [device.id for device in up.choose_devices(None)] == ["cpu"]


def test_gpus_are_read_from_the_drivers_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\necho '0, GPU-1, 143771, 143156, 0, NVIDIA H200'\necho '1, GPU-2, [N/A], [N/A], [N/A], NVIDIA H200 MIG 1g'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    first, second = machine.gpus()
    assert str(first) == "cuda:0 NVIDIA H200 (140 GiB free)"
    assert second.id == "cuda:1" and second.free_bytes is None
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert machine.gpus() == []


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True)
    embedded = redis_server.prepare(deep / "run")
    assert len(bytes(embedded.socket)) <= redis_server.LONGEST_SOCKET_PATH
    assert stat.S_IMODE(embedded.socket.parent.stat().st_mode) == 0o700
    assert embedded.password not in embedded.configuration.read_text()
    embedded.socket.parent.rmdir()


def test_without_a_redis_the_remedies_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(redis_server.NoRedis, match=r"redis-server.*FADRM_REDIS_URL"):
        redis_server.find_program()
