"""Links that hand one file of a job to whoever has them, for a while. Nothing is kept of them: the signature says it all."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app import audit, jobs
from app.errors import Forbidden, Gone, NotFound, Unprocessable
from app.models import Job, User, utc_now
from app.settings import Settings
from engine.errors import ErrorReport

PATH = "/api/v1/links/"
DAY_H = 24.0
MAX_EXPIRES = 2**40


class LinkIn(BaseModel):
    """What a link is to hand out."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=400, description="Of the file, as the list of artifacts has it.")
    hours: float = Field(DAY_H, gt=0, description="How long it works; a server has a limit (FADRM_MAX_LINK_HOURS).")


class Signed(BaseModel):
    """What stands behind the file's name in a link."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(max_length=80, description="Who made it.")
    expires: int = Field(ge=0, le=MAX_EXPIRES, description="When it ends, in seconds since 1970.")
    signature: str = Field(max_length=80)


class LinkOut(BaseModel):
    """A link. Who has it needs no login."""

    url: str
    name: str
    sha256: str
    size_bytes: int
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What is signed: which file, made by whom, good until when."""

    job_id: str
    name: str
    user_id: str
    expires: int  # s since 1970

    def signature(self, secret: bytes) -> str:
        """Of exactly this, and of nothing else that the secret signs."""
        parts = (self.job_id, self.name, self.user_id, str(self.expires))
        return hmac.new(secret, "\0".join(("link", *parts)).encode(), hashlib.sha256).hexdigest()

    def path(self, secret: bytes) -> str:
        """Where it leads, on this server."""
        query = {"by": self.user_id, "expires": self.expires, "signature": self.signature(secret)}
        return f"{PATH}{self.job_id}/{quote(self.name)}?{urlencode(query)}"


def make(session: Session, settings: Settings, secret: bytes, user: User, job: Job, wanted: LinkIn) -> tuple[Link, str]:
    """A link to a file of a job that the user sees, and its path; written down in the audit log. Raises Unprocessable."""
    if wanted.hours > settings.max_link_hours:
        report = ErrorReport(
            code="too_long",
            message=f"A link works for {settings.max_link_hours:g} hours at most, and {wanted.hours:g} were asked for.",
            hint="Ask for fewer hours, or have an administrator raise FADRM_MAX_LINK_HOURS.",
            pointer="/hours",
        )
        raise Unprocessable(report.message, hint=report.hint, errors=[report])
    until = utc_now() + timedelta(hours=wanted.hours)
    link = Link(job_id=job.id, name=wanted.name, user_id=user.id, expires=int(until.replace(tzinfo=UTC).timestamp()))
    audit.note(session, user, "link.make", job.id, name=wanted.name[:200], expires_at=until.isoformat())
    return link, link.path(secret)


def opened(session: Session, secret: bytes, link: Link, signature: str) -> Job:
    """The job whose file it hands out. Raises Forbidden, Gone, and NotFound once its maker does not see the job."""
    if not hmac.compare_digest(link.signature(secret).encode(), signature.encode()):
        raise Forbidden("This link was not made by this server, or was changed.", hint="Ask for a new one.")
    if link.expires <= utc_now().replace(tzinfo=UTC).timestamp():
        raise Gone("This link has expired.", hint="Ask who sent it for a new one.")
    maker = session.get(User, link.user_id)
    if maker is None or maker.disabled_at is not None:
        raise NotFound("Who made this link has no account any more.", hint="Ask somebody else of the team for one.")
    return jobs.get(session, maker, link.job_id)
