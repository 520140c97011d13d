"""`fadrm up`: one process that starts and keeps alive everything a server on one machine is made of."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self

import httpx
from rich.console import Console

from app import machine, migrate, orphans, redis_server, services, sweeper
from app.children import DEATHS, WINDOW_S, Child, own_command
from app.redis_server import EmbeddedRedis
from app.settings import Settings
from app.trouble import CannotStart
from fadrm.uploading import UPLOADS_FILE

LOOK_S = 0.1
CPU_WORKERS = 2  # two engines of half the threads each: small images gain nothing by threads (the demo: 122 s -> 48 s)
API_START_S = 300.0  # a busy machine takes minutes to import it all; one that died is noticed at once
BACKLOG = 2048  # connections that wait while the API starts: uvicorn's own number
OWN_FILES = (".lock", "fadrm.db", "secret", "store")
CLIENT_FILES = (UPLOADS_FILE,)  # a home may have served a client before it serves
LOCAL = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Lock:
    """That there is one server on a home folder. Given back when the process ends, however it ends."""

    def __init__(self, home: Path) -> None:
        self._file: IO[str] = (home / ".lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            pid = self._file.read().strip() or "?"
            self._file.close()
            raise CannotStart(
                f"A server is running on {home} already (process {pid}). Stop it first, or choose another --home."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@dataclass(slots=True, kw_only=True)
class Server:
    """Everything of one `fadrm up`."""

    settings: Settings
    host: str
    listener: socket.socket  # held here, so that no other server can answer in the API's place
    devices: Sequence[machine.Device]
    console: Console
    children: list[Child] = field(default_factory=list)
    redis: EmbeddedRedis | None = None
    _stops: int = 0

    @property
    def port(self) -> int:
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where users of this machine find it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def stop(self, *_: object) -> None:
        """Ask for the end; a second time: for an end at once. Also a signal handler."""
        self._stops += 1

    @property
    def is_stopping(self) -> bool:
        return self._stops > 0

    def prepare(self) -> None:
        """Schema, and what an earlier life left."""
        settings = self.settings
        migrate.upgrade(settings.database)
        self._say("data", f"{settings.home}   ({_name_of(settings)}, migrated to {migrate.newest()})")
        if settings.database_url:
            return  # other workers may live, here too: only for a database of this very folder its lock proves that none does
        with services.build(settings) as built:
            killed = orphans.kill(built.database, machine.hostname())
            expired = sweeper.expire_all(built)
        if killed or expired:
            self._say("took back", f"{expired} steps of an earlier run, {killed} processes ended")

    def start(self) -> None:
        """Start everything, in order, and wait until it answers. Raises CannotStart."""
        redis_url = self._start_redis()
        for slot, device in enumerate(self.devices):
            self._start_worker(slot, device, redis_url)
        self._start_api(redis_url)

    def keep_alive(self) -> None:
        """Until somebody asks for the end. Raises CannotStart when a process does not stay up."""
        while not self.is_stopping:
            self.look(time.monotonic())
            time.sleep(LOOK_S)

    def look(self, now: float) -> None:
        """Start again what has died."""
        for child in self.children:
            if child.is_alive:
                continue
            if child.process is not None:
                code = child.process.returncode
                child.has_died(now)
                self.console.print(f"[yellow]![/] {child.name} ended ({code}); starting it again", highlight=False)
            if child.is_hopeless(now):
                raise CannotStart(
                    f"{child.name} ended {DEATHS} times within {WINDOW_S:.0f} s. Its last words ({child.log}):\n"
                    f"{child.last_words()}"
                )
            if now >= child.next_start:
                child.start()

    def end(self) -> None:
        """Workers and API first, as both talk to Redis; whoever takes too long is ended by force."""
        talkers = [child for child in self.children if child.name != "redis"]
        for child in talkers:
            child.ask_to_end()
        began = time.monotonic()
        while any(child.is_alive for child in talkers) and self._stops < 2:
            limit_s = self.settings.grace_s + 5.0
            if time.monotonic() - began > limit_s:
                break
            time.sleep(LOOK_S / 2)
        for child in [*talkers, *self.children]:  # Redis last, and without ado: it keeps nothing
            child.end(time.monotonic())
        (self.settings.home / "run" / redis_server.URL_FILE).unlink(missing_ok=True)

    def _start_redis(self) -> str:
        if self.settings.redis_url:
            self._say("redis", "the one that FADRM_REDIS_URL names")
            return self.settings.redis_url
        self.redis = redis_server.prepare(self.settings.home / "run")
        self._add("redis", self.redis.command, {}).start()
        self.redis.await_ready()
        self._say("redis", f"embedded {self.redis.version} on {self.redis.socket}")
        return self.redis.url

    def _start_worker(self, slot: int, device: machine.Device, redis_url: str) -> None:
        threads = self.settings.threads or max(1, machine.cores() // len(self.devices))
        environment = {"FADRM_REDIS_URL": redis_url, "FADRM_DEVICE": device.id, "FADRM_THREADS": str(threads)}
        self._add(f"worker-{slot}", own_command("worker"), environment).start()
        note = "" if device.id != "cpu" else f", {threads} threads: for demos and small images"
        self._say("worker", f"{device}{note}")

    def _start_api(self, redis_url: str) -> None:
        socket_fd = self.listener.fileno()
        arguments = ("serve", "--host", self.host, "--fd", str(socket_fd))
        api = self._add("api", own_command(*arguments), {"FADRM_REDIS_URL": redis_url})
        api.inherits = (socket_fd,)
        api.start()
        deadline = time.monotonic() + API_START_S
        while not _answers(self.url):
            if self.is_stopping:
                return
            if time.monotonic() > deadline:
                raise CannotStart(f"The API does not answer. Its last words ({api.log}):\n{api.last_words()}")
            self.look(time.monotonic())
            time.sleep(LOOK_S)
        self._say("api", self.url)

    def _add(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        logs = self.settings.home / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        shared = os.environ | {"FADRM_HOME": str(self.settings.home)}
        child = Child(name=name, command=command, environment={**shared, **environment}, log=logs / f"{name}.log")
        self.children.append(child)
        return child

    def _say(self, what: str, facts: str) -> None:
        self.console.print(f"[green]✔[/] {what:<9} {facts}", highlight=False, soft_wrap=True)


def make_home(home: Path) -> None:
    """The folder that holds everything, for its owner alone. Raises CannotStart when it is somebody else's already."""
    others = home.exists() and {path.name for path in home.iterdir()} - {*CLIENT_FILES}
    if others and others.isdisjoint(OWN_FILES):
        raise CannotStart(f"{home} holds other things. Choose an empty folder, or one that is not there yet.")
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)


def choose_devices(workers: int | None) -> list[machine.Device]:
    """One worker a GPU, or two that share the CPU's cores; so many in turn when a number is given."""
    found = machine.gpus()
    usual = len(found) or min(CPU_WORKERS, machine.cores())
    shared = found or [machine.cpu()]
    return [shared[index % len(shared)] for index in range(usual if workers is None else workers)]


def check_host(settings: Settings, host: str) -> None:
    """Refuse to be seen by others without saying by which name. Raises CannotStart."""
    if host in LOCAL or settings.public_url or set(settings.hosts) - LOCAL:
        return
    raise CannotStart(
        f"--host {host} lets other machines in. Say first by which names they may call this server: "
        'FADRM_HOSTS=\'["127.0.0.1", "gpu-box.lab"]\' (or FADRM_PUBLIC_URL), and put a proxy that speaks TLS '
        "before it, as tokens would else travel in the clear."
    )


def open_port(host: str, port: int) -> socket.socket:
    """A socket that listens on the port, or on another where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port, 0):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
        else:
            return listener
    raise CannotStart(f"No port of {host} can be used.")


def listen(stop: Callable[..., None]) -> None:
    """Let signals that ask for the end call this."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=2.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _name_of(settings: Settings) -> str:
    return "database by FADRM_DATABASE_URL" if settings.database_url else "SQLite fadrm.db"
