"""What the command line can fail with: a sentence, and what to do. Imports nothing, so that it is there at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.problems import Problem


class CannotStart(Exception):
    """A server cannot be started: the sentence says why, and what to do."""


class ClientError(Exception):
    """Something to tell the user: a sentence and a hint."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.hint = hint


class Unreachable(ClientError):
    """There is no server at that address."""


class Refused(ClientError):
    """The server said no, and why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title, problem.hint)
        self.problem = problem


class Damaged(ClientError):
    """What was downloaded is not what the server has."""
