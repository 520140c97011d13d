"""The reference pages are what the code says."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from app.reference import pages

FOLDER = Path(__file__).parents[2] / "docs" / "reference"


def test_the_reference_is_what_the_code_says(app: FastAPI) -> None:
    made = pages(app)
    stale = [name for name, text in made.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text]
    assert not stale, "`make docs` writes them anew"
    assert {path.name for path in FOLDER.glob("*.md")} == set(made)
