"""The rows. `lazy="raise"` is not needed: there are no relationships, only keys; queries say what they join."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, Integer, String, Text, TypeDecorator, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Id = String(40)


def utc_now() -> datetime:
    """The time, aware, for display only: no rule depends on it."""
    return datetime.now(UTC)


class Time(TypeDecorator[datetime]):
    """An aware UTC time, also on SQLite, which forgets the zone, and on PostgreSQL, which tells it in its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class JobState(StrEnum):
    """Follows from the states of the job's steps, in the same transaction."""

    QUEUED = "queued"  # accepted; no step was claimed yet
    RUNNING = "running"  # at least one step was claimed
    PAUSED = "paused"  # somebody said so, and no step runs any more
    SUCCEEDED = "succeeded"  # every step is whole
    FAILED = "failed"  # a step cannot be done; people may have it tried again
    CANCELLED = "cancelled"  # somebody said so; likewise


class StepState(StrEnum):
    """Of one step of one job."""

    QUEUED = "queued"  # to be claimed as soon as the steps it needs are whole
    RUNNING = "running"  # claimed: one worker holds the lease
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL_JOB_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
TERMINAL_STEP_STATES = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED})
MAX_SEQ = 2**31 - 1  # of an event: what an Integer holds on every database


class User(Base):
    """A person, or the administrator of an embedded server."""

    __tablename__ = "users"
    __table_args__ = (Index("uq_users_lower_name", text("lower(name)"), unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[str] = mapped_column(String(20))  # admin, member, viewer
    password: Mapped[str | None] = mapped_column(String(200))  # argon2id, with its salt and costs; null: none was set
    disabled_at: Mapped[datetime | None] = mapped_column(Time)
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Team(Base):
    """People who show each other their work."""

    __tablename__ = "teams"
    __table_args__ = (Index("uq_teams_lower_name", text("lower(name)"), unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Membership(Base):
    """A person in a team."""

    __tablename__ = "memberships"

    team_id: Mapped[str] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)


class AuditEvent(Base):
    """Who did something that others may ask about. Rows are added; the database refuses to change or remove one."""

    __tablename__ = "audit_events"

    id: Mapped[str] = mapped_column(Id, primary_key=True)  # time-ordered
    actor_id: Mapped[str | None] = mapped_column(Id, index=True)  # null: nobody that is known, or this machine's owner
    actor: Mapped[str] = mapped_column(String(80))  # the name at that time
    action: Mapped[str] = mapped_column(String(40), index=True)
    target: Mapped[str] = mapped_column(String(80))  # id or name of what it was done to
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Token(Base):
    """Something one can log in with. Only its SHA-256 is kept: it has 256 random bits, so a slow hash adds nothing."""

    __tablename__ = "tokens"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    kind: Mapped[str] = mapped_column(String(20))  # api (a header), session (a cookie); login, invite (one-time links)
    name: Mapped[str] = mapped_column(String(80))
    scopes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))  # null: all that its user may do
    client: Mapped[str | None] = mapped_column(String(200))  # of a session: what browser, and from where
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
    expires_at: Mapped[datetime | None] = mapped_column(Time)
    last_used_at: Mapped[datetime | None] = mapped_column(Time)
    revoked_at: Mapped[datetime | None] = mapped_column(Time)


class Visibility(StrEnum):
    """Who sees a job, a sweep or an upload besides its owner and administrators."""

    PRIVATE = "private"  # nobody
    TEAM = "team"  # everybody who is in a team with its owner
    ALL = "all"  # everybody who is logged in


class UploadKind(StrEnum):
    """What was sent."""

    IMAGES = "images"  # an archive: a data set
    WEIGHTS = "weights"  # of a network that teaches


class Upload(Base):
    """What somebody sent and the store holds: images or weights. Of those who sent it and did not remove it, one owns it."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of what was sent
    kind: Mapped[UploadKind] = mapped_column(String(10), default=UploadKind.IMAGES, server_default="images")
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    title: Mapped[str] = mapped_column(String(80))
    size_bytes: Mapped[int] = mapped_column(BigInteger)  # of what was sent
    held_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # what lies in the store of it
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)  # app.uploads.Counts, app.weights.Facts
    visibility: Mapped[Visibility] = mapped_column(String(10), default=Visibility.PRIVATE, server_default="private")
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class UploadHolder(Base):
    """Somebody who sent the same bytes as another before: they hold them, so they see the upload whoever else may."""

    __tablename__ = "upload_holders"

    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), primary_key=True, index=True)
    title: Mapped[str | None] = mapped_column(String(80))  # that they gave it; null: of an older server


class Arrival(Base):
    """A file on its way, which comes piece by piece. How much of it is here, the file itself says."""

    __tablename__ = "arrivals"

    id: Mapped[str] = mapped_column(Id, primary_key=True)  # time-ordered
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    title: Mapped[str] = mapped_column(String(80))
    size_bytes: Mapped[int] = mapped_column(BigInteger)  # of the whole file, as announced
    kind: Mapped[UploadKind] = mapped_column(String(10), default=UploadKind.IMAGES, server_default="images")
    network: Mapped[str | None] = mapped_column(String(40))  # of weights: whose they are, as announced
    skip_bad: Mapped[bool] = mapped_column(default=False)
    upload_id: Mapped[str | None] = mapped_column(String(64))  # what it became
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # or why it became nothing
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
    expires_at: Mapped[datetime] = mapped_column(Time, index=True)


class Sweep(Base):
    """One request for many jobs: a base spec and what varies. How it stands follows from its jobs; the row never changes."""

    __tablename__ = "sweeps"
    __table_args__ = (Index("uq_sweeps_owner_id_idempotency_key", "owner_id", "idempotency_key", unique=True),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)  # time-ordered
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(80))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    axes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # app.sweeps.Axis
    request_sha256: Mapped[str] = mapped_column(String(64))
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    deleted_by: Mapped[str | None] = mapped_column(String(80))  # name of who put it into the trash, with its jobs, and
    deleted_at: Mapped[datetime | None] = mapped_column(Time)  # when
    visibility: Mapped[Visibility] = mapped_column(String(10), default=Visibility.PRIVATE, server_default="private")
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Job(Base):
    """What was asked, and how it stands. The spec never changes."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("uq_jobs_owner_id_idempotency_key", "owner_id", "idempotency_key", unique=True),
        Index("ix_jobs_owner_id_state", "owner_id", "state"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)  # time-ordered
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(80))
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    spec_sha256: Mapped[str] = mapped_column(String(64))
    rows: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # how the score card reads (engine.plan.Row)
    package_key: Mapped[str] = mapped_column(String(64))
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweeps.id"), index=True)
    cell: Mapped[list[int] | None] = mapped_column(JSON)  # its place in the sweep: one index an axis
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    visibility: Mapped[Visibility] = mapped_column(String(10), default=Visibility.PRIVATE, server_default="private")
    state: Mapped[JobState] = mapped_column(String(20), default=JobState.QUEUED, index=True)
    priority: Mapped[int] = mapped_column(Integer, default=0)  # -2..2, among jobs whose owners had equal shares
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    paused_by: Mapped[str | None] = mapped_column(String(80))  # name of who said so; null: it goes on
    pinned_by: Mapped[str | None] = mapped_column(String(80))  # name of who wants all its steps kept
    deleted_by: Mapped[str | None] = mapped_column(String(80))  # name of who put it into the trash, and
    deleted_at: Mapped[datetime | None] = mapped_column(Time, index=True)  # when: it is hidden, and later removed
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)  # engine.errors.ErrorReport, and the step
    last_seq: Mapped[int] = mapped_column(Integer, default=0)  # of its events; also its version
    log_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of the lines that engines told
    previews: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # contact sheets that they told
    created_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
    started_at: Mapped[datetime | None] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)


class Step(Base):
    """One unit of a job's work: what is claimed, leased, fenced, retried."""

    __tablename__ = "steps"
    __table_args__ = (
        Index("uq_steps_job_id_key", "job_id", "key", unique=True),
        # The database itself forbids that equal steps run twice at once, also for two jobs that share one.
        Index(
            "uq_steps_key_running",
            "key",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
        Index("ix_steps_state_id", "state", "id"),
    )

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    position: Mapped[int] = mapped_column(Integer)  # in the plan
    key: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    title: Mapped[str] = mapped_column(String(200))
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    needs: Mapped[dict[str, str]] = mapped_column(JSON)  # role -> key
    flop: Mapped[float] = mapped_column(default=0.0)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    host_bytes: Mapped[int | None] = mapped_column(
        BigInteger
    )  # estimated memory of its engine, null: nobody knows; and
    device_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of its tensors on the device, which may be the CPU

    state: Mapped[StepState] = mapped_column(String(20), default=StepState.QUEUED)
    cached: Mapped[bool] = mapped_column(default=False)  # found whole in the store, made by an earlier job
    fence: Mapped[int] = mapped_column(Integer, default=0)  # bumped at each claim; a stale holder's writes match no row
    beat: Mapped[int] = mapped_column(Integer, default=0)  # bumped at each heartbeat
    worker: Mapped[str | None] = mapped_column(String(80))
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # since people last had it tried again
    crash_streak: Mapped[int] = mapped_column(Integer, default=0)  # crashes since the last checkpoint
    not_before: Mapped[float] = mapped_column(default=0.0)  # Unix time before which it is not claimed again
    done: Mapped[int] = mapped_column(Integer, default=0)
    total: Mapped[int] = mapped_column(Integer, default=0)
    unit: Mapped[str] = mapped_column(String(20), default="")
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    seconds: Mapped[float | None]  # of computing, as the manifest says
    started_at: Mapped[datetime | None] = mapped_column(Time)
    finished_at: Mapped[datetime | None] = mapped_column(Time)


class StepNeed(Base):
    """An edge of the graph: a step may be claimed when every step it needs has succeeded."""

    __tablename__ = "step_needs"

    step_id: Mapped[int] = mapped_column(ForeignKey("steps.id"), primary_key=True)
    need_id: Mapped[int] = mapped_column(ForeignKey("steps.id"), primary_key=True, index=True)


class Attempt(Base):
    """One try of one step by one worker."""

    __tablename__ = "attempts"
    # All that a fair share is summed of: every claim sums a day's attempts, and reads nothing but this index.
    __table_args__ = (
        Index(
            "ix_attempts_finished_at_owner_id_started_at_outcome", "finished_at", "owner_id", "started_at", "outcome"
        ),
    )

    step_id: Mapped[int] = mapped_column(ForeignKey("steps.id"), primary_key=True)
    fence: Mapped[int] = mapped_column(Integer, primary_key=True)
    owner_id: Mapped[str] = mapped_column(Id, server_default=text("''"))  # of the step's job: who is charged for it
    worker: Mapped[str] = mapped_column(String(80))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int | None] = mapped_column(Integer)  # of the engine process, and
    pid_started: Mapped[float | None]  # when it began, which together name it among all that ever had the number
    device: Mapped[str] = mapped_column(String(40), default="")
    outcome: Mapped[str | None] = mapped_column(String(40))  # succeeded, failed, crashed, released, cancelled, lost
    detail: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
    finished_at: Mapped[datetime | None] = mapped_column(Time)


class Event(Base):
    """What happened to a job, numbered without gap: the live stream, the log and the history are this table."""

    __tablename__ = "events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    step_id: Mapped[int | None] = mapped_column(ForeignKey("steps.id"))
    fence: Mapped[int] = mapped_column(Integer, default=0)
    kind: Mapped[str] = mapped_column(String(40))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Metric(Base):
    """One point of one curve of a step. A step that goes on from a checkpoint writes the same points again."""

    __tablename__ = "metrics"
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 - SQLAlchemy's own name

    # Not the job: jobs that share a step share its curves.
    step_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    x: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[float]


class Mark(Base):
    """A residual injection: where a chart draws a line."""

    __tablename__ = "marks"

    step_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    x: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[dict[str, Any]] = mapped_column(JSON)  # engine.events.Injection


class Preview(Base):
    """A contact sheet: the images of a step as they were after iteration x."""

    __tablename__ = "previews"

    step_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    x: Mapped[int] = mapped_column(Integer, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)  # of the PNG, a blob of the store
    data: Mapped[dict[str, Any]] = mapped_column(JSON)  # engine.events.Preview


class StoredStep(Base):
    """A whole step in the store: what it weighs, and when a job last found or made it."""

    __tablename__ = "stored_steps"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[datetime] = mapped_column(Time, default=utc_now)


class Worker(Base):
    """A worker as it last said of itself."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(80), primary_key=True)  # host:device:slot
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    device: Mapped[str] = mapped_column(String(40))
    device_name: Mapped[str] = mapped_column(String(120), default="")
    version: Mapped[str] = mapped_column(String(40))
    step_id: Mapped[int | None] = mapped_column(ForeignKey("steps.id"))
    draining_by: Mapped[str | None] = mapped_column(String(80))  # name of who wants it to take no steps
    host_free_bytes: Mapped[int | None] = mapped_column(BigInteger)
    host_total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    device_free_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of its GPU
    device_total_bytes: Mapped[int | None] = mapped_column(BigInteger)
    strangers: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)  # app.machine.Process, of others on its GPU
    samples: Mapped[list[list[float]] | None] = mapped_column(
        JSON
    )  # lately: share of the device at work, and of its memory
    refuses: Mapped[str | None] = mapped_column(String(200))  # why it begins nothing, as a sentence; null: it would
    started_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
    seen_at: Mapped[datetime] = mapped_column(Time, default=utc_now)
