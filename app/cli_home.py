"""What the commands on this machine's own server share: its home folder, and its database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import load

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Home = Annotated[Path | None, typer.Option(help="Folder that holds everything the server writes (FADRM_HOME).")]


@contextmanager
def transaction(home: Path | None) -> Iterator[Session]:
    """One in the database of the server that has this home folder."""
    from app import services

    with services.build(load(home)) as built, built.database.write() as session:
        yield session
