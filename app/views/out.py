"""What every read model is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Out(BaseModel):
    """What the service answers with."""

    model_config = ConfigDict(frozen=True)
