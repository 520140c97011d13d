"""Weights of teachers: send, list, show to others, remove. Those that jobs trained are at GET /teachers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app import sent, weights
from app.api.uploads import UploadChangeIn, refuse_other_type
from app.deps import ServicesDep, UserDep, WriterDep
from app.errors import Unprocessable
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
    refuse_other_type(request, BYTES)
    weights.check_network(network)
    size_bytes = int(request.headers.get("content-length", "0"))  # the guard saw that it is a number
    await run_in_threadpool(sent.check_room, services, user, size_bytes, KIND)
    try:
        folder, sha256 = await sent.receive(services, request.stream(), KIND)
    except ClientDisconnect as error:
        raise Unprocessable("The file broke off on its way.", hint="Send it again.") from error

    def keep() -> tuple[WeightsOut, bool]:
        with request.app.state.unpacking:  # it is here already: it waits for its turn
            return weights.keep(services, user, folder, sha256, title, network)

    made, is_new = await run_in_threadpool(keep)
    response.headers["Location"] = f"/api/v1/weights/{made.id}"
    if not is_new:
        response.status_code = 200
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
