"""Who you are, and your tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app import auth
from app.deps import IdentityDep, ServicesDep, UserDep
from app.planning import Name

router = APIRouter(tags=["account"])


class MeOut(BaseModel):
    """You, and what you are logged in with."""

    id: str
    name: str
    role: str
    by: str = Field(description="session (a browser) or api (a token).")
    expires_at: datetime | None


class TokenIn(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name = Field(description="What it is for.")
    days: Annotated[int, Field(ge=1, le=3650, strict=True)] | None = Field(
        auth.API_DAYS, description="Null: until it is revoked."
    )


class TokenOut(BaseModel):
    """A token as it is listed: never itself."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewTokenOut(TokenOut):
    """A token as it is shown once."""

    token: str


@router.get("/me", summary="Who you are")
def get_me(identity: IdentityDep) -> MeOut:
    user, token = identity.user, identity.token
    return MeOut(id=user.id, name=user.name, role=user.role, by=token.kind, expires_at=token.expires_at)


@router.get("/tokens", summary="Your API tokens")
def list_tokens(services: ServicesDep, user: UserDep) -> list[TokenOut]:
    with services.database.read() as session:
        return [TokenOut.model_validate(token) for token in auth.tokens_of(session, user)]


@router.post("/tokens", status_code=201, summary="Make an API token: it is shown this once")
def create_token(wanted: TokenIn, services: ServicesDep, user: UserDep) -> NewTokenOut:
    with services.database.write() as session:
        token, plain = auth.api_token(session, user, wanted.name, wanted.days)
    return NewTokenOut(**TokenOut.model_validate(token).model_dump(), token=plain)


@router.delete("/tokens/{token_id}", status_code=204, summary="Revoke one of your tokens, at once")
def revoke_token(token_id: str, services: ServicesDep, user: UserDep) -> Response:
    with services.database.write() as session:
        auth.revoke(session, user, token_id)
    return Response(status_code=204)
