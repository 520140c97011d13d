"""A sweep as a value that knows its server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import Field, PrivateAttr

from fadrm.models import TERMINAL, Answer, Axis, Cell, Table

if TYPE_CHECKING:
    from fadrm.client import Client


class Sweep(Answer):
    """How a sweep stood when it was asked for. In a list it has no cells."""

    id: str
    name: str
    state: str
    jobs: dict[str, int]
    ended: int
    total: int
    axes: list[Axis]
    students: list[str] = Field(default_factory=list)
    labels: list[str] = Field(default_factory=list)
    subjects: list[str] = Field(default_factory=list)
    cells: list[Cell] = Field(default_factory=list)
    created_at: datetime
    urls: dict[str, str]
    _client: Client = PrivateAttr()

    def of(self, client: Client) -> Sweep:
        """This sweep, asked of that server from now on."""
        self._client = client
        return self

    @property
    def is_over(self) -> bool:
        """Whether all of its jobs have ended."""
        return self.state in TERMINAL

    @property
    def web(self) -> str:
        """Address of its page."""
        return f"{self._client.url}{self.urls['web']}"

    def refresh(self) -> Sweep:
        """How it stands now."""
        return self._client.sweep(self.id)

    def wait(self) -> Sweep:
        """Wait until all of its jobs have ended."""
        return self._client.wait_for_sweep(self.id)

    def cancel(self) -> Sweep:
        """Ask for the end of all of its jobs."""
        return self._client.cancel_sweep(self.id)

    def table(self, *, student: str = "", labels: str = "") -> Table:
        """A row a job: axes, then mean and spread of each subject."""
        return self._client.sweep_table(self.id, student=student, labels=labels)

    def _repr_html_(self) -> str:
        from fadrm import notebook

        return notebook.table(self.name, self.table())


class SweepPage(Answer):
    """A page of a list of sweeps, newest first."""

    data: list[Sweep]
    has_more: bool
    next_cursor: str | None
