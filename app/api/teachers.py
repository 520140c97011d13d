"""Trained teachers."""

from __future__ import annotations

from fastapi import APIRouter

from app.deps import ServicesDep, UserDep
from app.views.teachers import TeacherOut, teachers

router = APIRouter(tags=["catalogue"])


@router.get("/teachers", summary="Teachers in the store that jobs of yours, or that you may see, have used")
def list_teachers(services: ServicesDep, user: UserDep) -> list[TeacherOut]:
    with services.database.read() as session:
        return teachers(session, services.store, user)
