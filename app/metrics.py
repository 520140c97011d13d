"""Figures for Prometheus, at /metrics, for administrators: what the rows say, and what this process has answered.

What is taken from rows is the same whichever process of the server is asked; it goes down when old jobs are deleted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.orm import Session
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import auth, logs
from app.claims import runnable
from app.deps import IdentityDep, ServicesDep
from app.models import Attempt, Job, Step, StepState, User, Worker, utc_now
from app.services import Services
from app.shares import LOST, UnixSeconds
from app.workers import ONLINE_S

STEP_BUCKETS_S = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600)
WAIT_BUCKETS_S = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)
ANSWER_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUIET = ("/healthz", "/readyz", "/metrics", "/static/")  # asked for so often that a log line of each says nothing
log = logging.getLogger(__name__)
router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def get_metrics(request: Request, services: ServicesDep, identity: IdentityDep) -> Response:
    with services.database.read() as session:
        # Of an administrator also a token that may only read: a scraper has no more.
        auth.may_administer(session.get_one(User, identity.user.id))
    registry: CollectorRegistry = request.app.state.metrics.registry
    return Response(generate_latest(registry), media_type=MEDIA_TYPE)


class Metrics:
    """Of one app."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.answers = Histogram(
            "fadrm_request_seconds",
            "From a request to the beginning of its answer, by this process.",
            ("method", "route", "status"),
            buckets=ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.event_lag = Histogram(
            "fadrm_event_lag_seconds",
            "From when an event was written to when this process saw it, for those who watch.",
            buckets=ANSWER_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(Rows(services))


class Measured:
    """Counts every answer and writes a line of it; whatever is logged on the way bears the request's number."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._note(scope, status, time.perf_counter() - began)
            await send(message)

        with logs.about(request=scope["state"].get("request_id", "")):
            await self.app(scope, receive, noted)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "name", "none")
        self.metrics.answers.labels(scope["method"], route, str(status)).observe(seconds)
        identity = scope["state"].get("identity")
        level = logging.DEBUG if scope["path"].startswith(QUIET) else logging.INFO
        user = identity.user.id if identity else None
        facts = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(1000 * seconds, 1)}
        log.log(level, "answered", extra=facts | {"user": user})


class Rows(Collector):
    """What the database says of steps, jobs, attempts and workers, when it is asked."""

    def __init__(self, services: Services) -> None:
        self.database = services.database

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing before it is asked: at start there may be no database yet."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily]:
        with self.database.read() as session:
            yield from _queue(session)
            yield _step_seconds(session)
            yield _waiting_seconds(session)
            yield _attempts(session)
            yield from _workers(session)


def _queue(session: Session) -> Iterator[GaugeMetricFamily]:
    steps = GaugeMetricFamily("fadrm_steps", "Steps that are not over.", labels=("kind", "state"))
    open_states = (StepState.QUEUED, StepState.RUNNING)
    counted = select(Step.kind, Step.state, func.count()).where(Step.state.in_(open_states))
    for kind, state, count in session.execute(counted.group_by(Step.kind, Step.state)):
        steps.add_metric((kind, state), count)
    yield steps
    jobs = GaugeMetricFamily("fadrm_jobs", "Jobs.", labels=("state",))
    for job_state, count in session.execute(select(Job.state, func.count()).group_by(Job.state)):
        jobs.add_metric((job_state,), count)
    yield jobs
    waiting = select(func.count(), func.min(UnixSeconds(Job.created_at))).select_from(Step)
    depth, oldest = session.execute(waiting.join(Job, Job.id == Step.job_id).where(runnable())).one()
    yield GaugeMetricFamily("fadrm_queue_depth", "Steps that wait for nothing but a worker.", value=depth)
    age_s = max(0.0, time.time() - oldest) if depth else 0.0
    yield GaugeMetricFamily("fadrm_queue_oldest_seconds", "Age of the oldest job among theirs.", value=age_s)


def _step_seconds(session: Session) -> HistogramMetricFamily:
    found = HistogramMetricFamily("fadrm_step_seconds", "What steps took that were done.", labels=("kind",))
    done = select(Step.kind).where(Step.state == StepState.SUCCEEDED, Step.cached.is_(False), Step.seconds.is_not(None))
    for kind, *counts, total in session.execute(
        _histogram(done.group_by(Step.kind), Step.seconds, STEP_BUCKETS_S)  # type: ignore[arg-type] # it is not null
    ):
        found.add_metric((kind,), _buckets(counts, STEP_BUCKETS_S), total)
    return found


def _waiting_seconds(session: Session) -> HistogramMetricFamily:
    found = HistogramMetricFamily("fadrm_job_waiting_seconds", "From a job's submission to its first step.", labels=())
    waited = UnixSeconds(Job.started_at) - UnixSeconds(Job.created_at)
    query = _histogram(select().select_from(Job).where(Job.started_at.is_not(None)), waited, WAIT_BUCKETS_S)
    *counts, total = session.execute(query).one()
    found.add_metric((), _buckets(counts, WAIT_BUCKETS_S), total or 0.0)
    return found


def _histogram(query: Select[*tuple[object, ...]], seconds: ColumnElement[float], limits: Sequence[float]) -> Select:  # type: ignore[type-arg] # what is added is known here alone
    """The query, and beside its columns how many values are within each limit, how many there are, and their sum."""
    within = [func.coalesce(func.sum(case((seconds <= limit, 1), else_=0)), 0) for limit in limits]
    return query.add_columns(*within, func.count(), func.sum(seconds))


def _buckets(counts: Sequence[float], limits: Sequence[float]) -> list[tuple[str, float]]:
    """Limit -> count, as Prometheus writes it; counts has one more for what has no limit."""
    return list(zip([*map(str, map(float, limits)), "+Inf"], counts, strict=True))


def _attempts(session: Session) -> CounterMetricFamily:
    found = CounterMetricFamily("fadrm_attempts", "Attempts that ended; lost: their lease was.", labels=("outcome",))
    ended = select(Attempt.outcome, func.count()).where(Attempt.outcome.is_not(None)).group_by(Attempt.outcome)
    counts = {LOST: 0} | {str(outcome): count for outcome, count in session.execute(ended)}
    for outcome, count in counts.items():
        found.add_metric((outcome,), count)
    return found


def _workers(session: Session) -> Iterator[GaugeMetricFamily]:
    now, there = utc_now(), session.scalars(select(Worker).order_by(Worker.id)).all()
    for name, text, value in (
        ("seen_seconds", "Since it was last heard of.", lambda one: (now - one.seen_at).total_seconds()),
        ("online", "Whether that was lately.", lambda one: (now - one.seen_at).total_seconds() < ONLINE_S),
        ("busy", "Whether it works on a step.", lambda one: one.step_id is not None),
        ("draining", "Whether it is to take no steps.", lambda one: one.draining_by is not None),
        ("strangers", "Programs of others on its GPU.", lambda one: len(one.strangers or ())),
        ("host_memory_free_bytes", "Of its machine or container.", lambda one: one.host_free_bytes),
        ("host_memory_total_bytes", "Of its machine or container.", lambda one: one.host_total_bytes),
        ("gpu_memory_free_bytes", "Of its GPU.", lambda one: one.device_free_bytes),
        ("gpu_memory_total_bytes", "Of its GPU.", lambda one: one.device_total_bytes),
    ):
        found = GaugeMetricFamily(f"fadrm_worker_{name}", text, labels=("worker",))
        for one in there:
            told = value(one)
            if told is not None:
                found.add_metric((one.id,), float(told))
        yield found
