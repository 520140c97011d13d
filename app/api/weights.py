"""Weights of teachers: send, list, show to others, remove. Those that jobs trained are at GET /teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app import sent, weights
from app.api.uploads import UploadChangeIn, received, tell_of
from app.deps import ServicesDep, UserDep, WriterDep
from app.planning import Name
from app.weights import KIND, TITLE, WeightsOut

BYTES = "application/octet-stream"
BODY = {"required": True, "content": {BYTES: {"schema": {"type": "string", "format": "binary"}, "example": "..."}}}
Network = Annotated[str, Query(max_length=40, description="Whose weights they are: a network as a spec names it.")]
router = APIRouter(tags=["catalogue"])


@router.post(
    "/weights",
    status_code=201,
    summary="Send a .safetensors file as the body; 200 when the same bytes were here already",
    openapi_extra={"requestBody": BODY},
)
async def create_weights(
    request: Request,
    response: Response,
    services: ServicesDep,
    user: WriterDep,
    network: Network,
    title: Annotated[Name, Query(description="For people.")] = TITLE,
) -> WeightsOut:
    weights.check_network(network)

    def keep(folder: Path, sha256: str) -> tuple[WeightsOut, bool]:
        return weights.keep(services, user, folder, sha256, title, network)

    made, is_new = await received(request, services, user, KIND, BYTES, keep)
    tell_of(response, f"/api/v1/weights/{made.id}", is_new=is_new)
    return made


@router.get("/weights", summary="Weights that were sent, and that you may see")
def list_weights(services: ServicesDep, user: UserDep) -> list[WeightsOut]:
    return weights.listed(services, user)


@router.get("/weights/{weights_id}", summary="Weights that were sent")
def get_weights(weights_id: str, services: ServicesDep, user: UserDep) -> WeightsOut:
    return weights.get(services, user, weights_id)


@router.patch("/weights/{weights_id}", summary="Who sees weights of yours")
def change_weights(wanted: UploadChangeIn, weights_id: str, services: ServicesDep, user: WriterDep) -> WeightsOut:
    sent.show_to(services, user, weights_id, wanted.visibility, KIND)
    return weights.get(services, user, weights_id)


@router.delete("/weights/{weights_id}", status_code=204, summary="Remove weights of yours")
def delete_weights(weights_id: str, services: ServicesDep, user: WriterDep) -> None:
    sent.remove(services, user, weights_id, KIND)
