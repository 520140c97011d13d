"""The REST API: everything a program can ask. Thin: parse, call, answer."""

from __future__ import annotations

from fastapi import APIRouter

from app.api import (
    account,
    arrivals,
    catalogue,
    compare,
    folders,
    jobs,
    live,
    outcome,
    people,
    storage,
    sweeps,
    teachers,
    uploads,
    weights,
    workers,
)


def router() -> APIRouter:
    """Every route under /api/v1."""
    made = APIRouter(prefix="/api/v1")
    for part in (
        jobs,
        compare,
        sweeps,
        live,
        outcome,
        catalogue,
        folders,
        uploads,
        arrivals,
        teachers,
        weights,
        storage,
        workers,
    ):
        made.include_router(part.router)
    for part in (account, people):
        made.include_router(part.router)
    return made
