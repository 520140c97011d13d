"""What a client can fail with: a sentence, and what to do."""

from __future__ import annotations

from fadrm.models import Problem


class ClientError(Exception):
    """Something to tell the user: a sentence and a hint."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        super().__init__(sentence)
        self.sentence, self.hint = sentence, hint

    def __str__(self) -> str:
        return f"{self.sentence} {self.hint}".rstrip()


class Unreachable(ClientError):
    """There is no server at that address."""


class Refused(ClientError):
    """The server said no, and why: `problem` has the code, and a pointer to each field that is to blame."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title, problem.hint)
        self.problem = problem


class Damaged(ClientError):
    """What was downloaded is not what the server has."""
