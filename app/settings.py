"""Settings: the server's only reader of the environment; commands find their server by `fadrm.connection`.

Every field is a variable FADRM_<NAME>.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.trouble import CannotStart

PREFIX = "FADRM_"


def _default_home() -> Path:
    return Path.home() / ".local" / "share" / "fadrm"


def _listed(value: Any) -> Any:
    """`a, b` or `["a", "b"]` of the environment as a list. Raises ValueError."""
    if not isinstance(value, str):
        return value
    if re.match(r'\s*\[\s*["\]]', value):  # and not [::1]
        return json.loads(value)
    return [part.strip() for part in value.split(",") if part.strip()]


Listed = (NoDecode, BeforeValidator(_listed))  # of a field that the environment has as one line


class Settings(BaseSettings):
    """What an administrator decides. Read once at start, then passed on."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Annotated[Path, AfterValidator(lambda home: home.expanduser().absolute())] = Field(
        default_factory=_default_home, description="Folder that holds everything the server writes."
    )
    database_url: str = Field("", description="SQLAlchemy URL; empty means SQLite in the home folder.")
    redis_url: str = Field(
        "", description="Redis URL of the doorbell; empty means the embedded Redis in the home folder."
    )
    store: Path | None = Field(
        None, description="Folder of steps and downloads, shared by all workers; by default in home."
    )
    bucket: str = Field(
        "",
        pattern=r"^(s3://[^/]+(/.*)?)?$",
        description="s3://bucket/prefix that the store is kept in; its folder is then what a machine has at hand of it. "
        "Credentials are those of the usual AWS variables.",
    )
    s3_endpoint: str = Field("", description="Address of an S3 server that is not Amazon's.")
    cache_bytes: int = Field(
        0, ge=0, description="Bytes of a bucket's steps that a machine keeps copies of; 0: all that it used."
    )
    data_roots: Annotated[tuple[Path, ...], *Listed] = Field(
        (), description="Folders that data sets may lie under, with commas between them."
    )
    public_url: str = Field("", description="Address that users see; by default that of the request.")
    hosts: Annotated[tuple[str, ...], *Listed] = Field(
        ("127.0.0.1", "localhost", "[::1]"), description="Host headers that are answered, with commas between them."
    )
    secret: SecretStr = Field(
        SecretStr(""), description="Signs nothing but CSRF tokens; made at first start when empty."
    )

    url: str = Field("", description="Of the server that commands speak to; by default the one on this machine.")
    token: SecretStr = Field(SecretStr(""), description="API token of those commands.")
    device: str = Field("cpu", description="What a worker computes on: cpu, or cuda:<number>.")
    heartbeat_s: float = Field(1.0, gt=0, description="A worker writes its events and renews its lease this often.")
    self_fence_s: float = Field(
        40.0, gt=0, description="A worker that cannot renew its lease for so long stops its engine."
    )
    lease_s: float = Field(60.0, gt=0, description="A lease that nobody renewed for so long is taken away.")
    sweep_s: float = Field(5.0, gt=0, description="The reaper looks, and the bell rings for waiting work, this often.")
    grace_s: float = Field(30.0, gt=0, description="From SIGTERM to SIGKILL when an engine is stopped.")
    max_crashes: int = Field(
        3, ge=1, description="Crashes of a step without a new checkpoint before it fails for good."
    )
    max_attempts: int = Field(
        20, ge=1, description="Attempts of a step that may crash, whatever it got done, before it fails for good."
    )
    max_running_per_user: int = Field(64, ge=1, description="Steps of one user that run at once.")
    match_memory: bool = Field(
        True, description="A step begins only where as much memory is free as it is estimated to take."
    )
    share_gpus: bool = Field(
        False, description="Use GPUs on which processes of others compute too, as far as their memory goes."
    )
    max_queued_per_user: int = Field(50, ge=1, description="Unfinished jobs of one user; a sweep counts once.")
    visibility: Literal["private", "team", "all"] = Field(
        "team", description="Who sees a new job besides its owner and administrators, where its owner does not say."
    )
    max_jobs_per_sweep: int = Field(200, ge=1, le=10_000, description="Jobs that one sweep may have.")
    max_upload_bytes: int = Field(4 * 2**30, ge=1, description="Bytes of an uploaded archive of images.")
    max_upload_entries: int = Field(200_000, ge=1, description="Files and folders in an uploaded archive.")
    max_upload_file_bytes: int = Field(64 * 2**20, ge=1, description="Bytes of one image in an uploaded archive.")
    max_upload_unpacked_bytes: int = Field(8 * 2**30, ge=1, description="Bytes of all its images, unpacked.")
    max_upload_ratio: float = Field(
        100.0, ge=1, description="How many times smaller than its images an uploaded archive may be."
    )
    max_upload_pixels: int = Field(25_000_000, ge=1, description="Pixels of one image in an uploaded archive.")
    max_upload_bytes_per_user: int = Field(
        64 * 2**30,
        ge=1,
        description="Bytes that all uploads of one user take in the store, with those that are under way.",
    )
    max_weights_bytes: int = Field(2**30, ge=1, description="Bytes of an uploaded file of weights.")
    max_uploads_at_once: int = Field(4, ge=1, description="Uploads of one user that are under way at once.")
    upload_expires_h: float = Field(
        24.0, gt=0, description="Hours after its last piece until an unfinished upload is forgotten."
    )
    max_unpacking_at_once: int = Field(2, ge=1, description="Archives that one process of the API reads at once.")
    max_reads_per_min: int = Field(
        3000, ge=0, description="Requests of one user that read something, to one process of the API; 0: no limit."
    )
    max_writes_per_min: int = Field(
        300, ge=0, description="Requests of one user that change something, to one process of the API; 0: no limit."
    )
    max_body_bytes: int = Field(2**20, ge=1024, description="Bytes of a request that is no upload.")
    max_spec_bytes: int = Field(2**18, ge=1024, description="Bytes of a spec as JSON.")
    max_log_bytes_per_job: int = Field(
        32 * 2**20, ge=0, description="Bytes of a job's log; further lines of its engines are left out, which it says."
    )
    max_previews_per_job: int = Field(
        5000, ge=0, description="Contact sheets of a job; further ones are left out, which its log says."
    )
    max_link_hours: float = Field(
        168.0, gt=0, description="How long a link works that hands out a file without a login."
    )
    max_streams: int = Field(1000, ge=1, description="Streams of events that one process of the API holds open.")
    max_streams_per_user: int = Field(20, ge=1, description="Streams of events that one user has open at once.")
    max_unpacking_bytes: int = Field(
        2 * 2**30, ge=2**28, description="Memory of the process that reads an uploaded archive."
    )
    max_unpacking_s: int = Field(600, ge=1, description="Seconds that reading an uploaded archive may take.")
    silence_s: float = Field(
        1800.0,
        gt=0,
        description="An engine that tells nothing for so long is ended, and its attempt counts as a crash.",
    )
    max_bytes_per_user: int = Field(
        0, ge=0, description="Bytes that the finished steps of one user's jobs may hold in the store; 0: no limit."
    )
    reserve_bytes: int = Field(
        2**30, ge=0, description="Bytes of the store's disk that stay free: below, nothing is taken or begun."
    )
    reserve_share: float = Field(0.0, ge=0, lt=1, description="The same as a share of the disk; the larger counts.")
    keep_steps_days: float = Field(
        30.0,
        ge=0,
        description="Steps that only ended jobs need, but for downloads, are removed so long after; 0: never.",
    )
    keep_work_days: float = Field(
        7.0, ge=0, description="Checkpoints of ended jobs are removed so long after their end; 0: never."
    )
    keep_previews_days: float = Field(
        90.0, ge=0, description="Of ended jobs all but the newest contact sheet of a step go after so long; 0: never."
    )
    keep_logs_days: float = Field(
        180.0, ge=0, description="Log lines and progress of ended jobs are removed so long after their end; 0: never."
    )
    keep_uploads_days: float = Field(
        0.0, ge=0, description="Uploaded images and weights that no job used for so long are removed; 0: never."
    )
    keep_trash_days: float = Field(14.0, ge=0, description="Deleted jobs are removed truly after so long; 0: never.")
    janitor_s: float = Field(600.0, gt=0, description="From one round of the janitor to the next.")
    janitor_most: int = Field(500, ge=1, description="Things that the janitor removes in one round.")
    checkpoint_s: float = Field(60.0, gt=0, description="From one checkpoint of a running step to the next.")
    threads: int = Field(
        0, ge=0, description="CPU threads of one engine; 0 shares the cores among this machine's workers."
    )

    @property
    def database(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite:///{self.home / 'fadrm.db'}"

    @property
    def store_root(self) -> Path:
        """The store's folder."""
        return self.store or self.home / "store"


DEFAULTS = Settings.model_construct()  # whatever the environment has


class Shown(NamedTuple):
    """One setting as it is listed."""

    variable: str
    value: str
    source: str  # "environment" or "default"
    help: str


def load(home: Path | None = None) -> Settings:
    """The settings of this process, with this home folder. Raises CannotStart, naming the variable that is wrong."""
    try:
        return Settings() if home is None else Settings(home=home)
    except ValidationError as error:
        first = error.errors()[0]
        variable, told = f"{PREFIX}{first['loc'][0]}".upper(), first["msg"]
        raise CannotStart(
            f"{variable} is {first['input']!r}: {told}. `fadrm settings` tells what each is for."
        ) from error


def shown(settings: Settings) -> Iterator[Shown]:
    """Every setting with its value and where that comes from. No secret is told."""
    for name, field in Settings.model_fields.items():
        source = "environment" if name in settings.model_fields_set else "default"
        yield Shown(f"{PREFIX}{name}".upper(), _told(getattr(settings, name)), source, field.description or "")


def _told(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "(set, not shown)" if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    password = urlsplit(text).password if "://" in text else None
    return text.replace(f":{password}@", ":***@") if password else text
