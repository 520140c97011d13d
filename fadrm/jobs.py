"""A job as a value that knows its server: how it stands, and what one does with it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from fadrm.models import TERMINAL, Answer, Event, Failure, File, Files, Link, LogLine, Owner, Results, Stage, Step

if TYPE_CHECKING:
    from fadrm.client import Client
    from fadrm.sets import Distilled


class Job(Answer):
    """How a job stood when it was asked for; `refresh()` asks again. `steps` is empty in a list."""

    id: str
    name: str
    owner: Owner
    state: str
    sentence: str
    progress: float
    eta_seconds: float | None
    stages: list[Stage]
    steps: list[Step] = Field(default_factory=list)
    dataset: str
    method: str
    ipc: int
    error: Failure | None
    priority: int
    version: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    urls: dict[str, str]
    _client: Client = PrivateAttr()

    def of(self, client: Client) -> Job:
        """This job, asked of that server from now on."""
        self._client = client
        return self

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in TERMINAL

    @property
    def web(self) -> str:
        """Address of its page."""
        return f"{self._client.url}{self.urls['web']}"

    def refresh(self) -> Job:
        """How it stands now."""
        return self._client.job(self.id)

    def wait(self, *, progress: bool | None = None) -> Job:
        """Wait until it has ended, and return how. progress: draw bars; by default where somebody can see them."""
        return self._client.wait(self.id, progress=progress)

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Its events past a number, once and in order, until it has ended; over reconnects and restarts."""
        return self._client.events(self.id, after=after)

    def log(self, *, follow: bool = False) -> Iterator[LogLine]:
        """Its log, line by line. follow: until it has ended."""
        return self._client.log(self.id, follow=follow)

    def spec(self) -> dict[str, Any]:
        """Its whole spec, to be edited and submitted again."""
        return self._client.spec(self.id)

    def results(self) -> Results:
        """Its score card."""
        return self._client.results(self.id)

    def files(self) -> Files:
        """Its downloads."""
        return self._client.files(self.id)

    def cancel(self) -> Job:
        """Ask for its end."""
        return self._client.cancel(self.id)

    def pause(self) -> Job:
        """Let it rest; what runs leaves a checkpoint."""
        return self._client.pause(self.id)

    def resume(self) -> Job:
        """Let it go on."""
        return self._client.resume(self.id)

    def retry(self) -> Job:
        """Try it again; whole steps stay."""
        return self._client.retry(self.id)

    def download(self, folder: str | Path = ".", *, ipc: int | None = None) -> Path:
        """Fetch its zip, going on where an earlier download broke off; the SHA-256 is checked. ipc: by default its own."""
        return self._client.download_package(self.id, folder, ipc=ipc)

    def export(self, form: str, *, ipc: int | None = None) -> File:
        """Its download in another form, written if need be: one of parquet, webdataset, uint8, normalised, fkd."""
        return self._client.export(self.id, form, ipc=ipc)

    def link(self, name: str | None = None, *, hours: float = 24.0) -> Link:
        """A link to a file of it that needs no login for so long. name: by default the zip of its own ipc."""
        return self._client.link(self.id, name, hours=hours)

    def distilled(self, folder: str | Path = ".", *, ipc: int | None = None) -> Distilled:
        """Its images, downloaded: `.dataset()` for torch, `.huggingface()` for datasets."""
        from fadrm.sets import Distilled

        return Distilled(self.download(folder, ipc=ipc))

    def sheet(self) -> bytes | None:
        """The newest contact sheet of its images, a PNG; None before there is one."""
        return self._client.newest_sheet(self.id)

    def _repr_html_(self) -> str:
        from fadrm import notebook

        return notebook.job(self)


class JobPage(Answer):
    """A page of a list of jobs, newest first."""

    data: list[Job]
    has_more: bool
    next_cursor: str | None
