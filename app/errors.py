"""What the service answers with when it cannot do what was asked. One handler renders all of them as problem+json."""

from __future__ import annotations

from typing import Any, ClassVar

from engine.errors import ErrorReport


class ServiceError(Exception):
    """Carries a status, a code, a sentence and a hint."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(
        self,
        detail: str,
        *,
        hint: str = "",
        errors: list[ErrorReport] | None = None,
        headers: dict[str, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.errors = errors or []
        self.headers = headers or {}
        self.details = details


class UnknownHost(ServiceError):
    """The request calls this server by a name that is not its own."""

    status, code, title = 400, "unknown_host", "Not a name of this server"


class Unauthenticated(ServiceError):
    """Nobody is logged in."""

    status, code, title = 401, "unauthenticated", "Log in first"


class Forbidden(ServiceError):
    """Somebody is, but may not do this."""

    status, code, title = 403, "forbidden", "Not allowed"


class NotFound(ServiceError):
    """There is no such thing, or it is not theirs to see."""

    status, code, title = 404, "not_found", "Not found"


class Conflict(ServiceError):
    """It cannot be done in the state that the thing is in."""

    status, code, title = 409, "conflict", "Not possible now"


class BadChecksum(ServiceError):
    """What came is not what its checksum says (tus)."""

    status, code, title = 460, "bad_checksum", "Damaged on the way"


class UnknownVersion(ServiceError):
    """The sender speaks another version of the protocol."""

    status, code, title = 412, "unknown_version", "Another version is spoken here"


class Outdated(ServiceError):
    """The thing is no longer as the asker saw it (If-Match)."""

    status, code, title = 412, "outdated", "Changed meanwhile"


class Gone(ServiceError):
    """It was here, and is no more."""

    status, code, title = 410, "gone", "No longer here"


class TooLarge(ServiceError):
    """The body is larger than anything that is expected here."""

    status, code, title = 413, "too_large", "Too much was sent"

    def __init__(
        self,
        detail: str = "The body is larger than anything that is expected here.",
        *,
        hint: str = "A spec has some kilobytes.",
    ) -> None:
        super().__init__(detail, hint=hint)


class NoSuchRange(ServiceError):
    """The file has no byte where the range is that was asked for."""

    status, code, title = 416, "no_such_range", "Past the end of the file"


class Unprocessable(ServiceError):
    """The request is well-formed and asks for something impossible; `errors` point at the fields."""

    status, code, title = 422, "invalid", "The request cannot be carried out"


class TooMany(ServiceError):
    """A limit is reached."""

    status, code, title = 429, "too_many", "Limit reached"


class NoRoom(ServiceError):
    """The store's disk is at its reserve."""

    status, code, title = 507, "no_room", "No room"


class Unavailable(ServiceError):
    """Not now; try again shortly."""

    status, code, title = 503, "unavailable", "Try again shortly"
