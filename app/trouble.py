"""What the command line can fail with: a sentence, and what to do."""

from fadrm.errors import ClientError, Unreachable

__all__ = ["CannotStart", "ClientError", "Unreachable"]


class CannotStart(Exception):
    """A server cannot be started: the sentence says why, and what to do."""
