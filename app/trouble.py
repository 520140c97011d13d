"""What the command line can fail with: a sentence, and what to do."""

from fadrm.errors import ClientError, Damaged, Refused, Unreachable

__all__ = ["CannotStart", "ClientError", "Damaged", "Refused", "Unreachable"]


class CannotStart(Exception):
    """A server cannot be started: the sentence says why, and what to do."""
