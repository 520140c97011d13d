"""What there is to choose from."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from app import uploads
from app.datasets import DatasetOut, catalogue
from app.deps import ServicesDep, UserDep
from engine.presets import PRESETS
from engine.spec import JobSpec

router = APIRouter(tags=["catalogue"])


class PresetOut(BaseModel):
    """A job to start from."""

    name: str
    title: str
    note: str
    spec: JobSpec


@router.get("/presets", summary="Jobs to start from")
def list_presets(_user: UserDep) -> list[PresetOut]:
    return [
        PresetOut(name=preset.name, title=preset.title, note=preset.note, spec=preset.spec)
        for preset in PRESETS.values()
    ]


@router.get("/datasets", summary="Data sets: built in, uploaded, and folders under the roots that this server allows")
def list_datasets(services: ServicesDep, user: UserDep) -> list[DatasetOut]:
    return [*catalogue(services.settings.data_roots), *uploads.listed(services, user)]
