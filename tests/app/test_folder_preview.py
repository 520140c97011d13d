"""A folder of classes can be looked into before a job is made of it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.app.world import World

COLOURS = {"cat": (200, 40, 30), "dog": (30, 60, 210)}


@pytest.fixture
def folder(world: World) -> Path:
    """Six cats and three dogs; a third of each is for testing."""
    root = world.services.settings.data_roots[0] / "pets"
    for name, count in (("cat", 6), ("dog", 3)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (80, 48), COLOURS[name]).save(root / name / f"{index}.png")
    return root


def look(client: TestClient, folder: Path) -> dict[str, Any]:
    answer = client.get("/api/v1/datasets/preview", params={"path": str(folder)})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def sheet(client: TestClient, folder: Path) -> Image.Image:
    return Image.open(BytesIO(client.get(look(client, folder)["sheet"]).content))


def test_a_folders_classes_are_counted(client: TestClient, folder: Path) -> None:
    told = look(client, folder)
    assert told["classes"] == [{"name": "cat", "train": 5, "test": 1}, {"name": "dog", "train": 2, "test": 1}]
    assert (told["title"], told["train_images"], told["balance"], told["shown"]) == ("pets", 7, 0.4, 2)


def test_a_sheet_shows_one_image_of_each_class_in_their_order(client: TestClient, folder: Path) -> None:
    image = sheet(client, folder)
    assert image.size == (130, 64)
    assert [image.getpixel((x, 32)) for x in (32, 98)] == list(COLOURS.values())


def test_an_image_that_cannot_be_read_is_grey_on_the_sheet(client: TestClient, folder: Path) -> None:
    for path in (folder / "dog").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    assert sheet(client, folder).getpixel((98, 32)) == (200, 200, 200)


def test_a_sheet_that_one_has_already_is_not_sent_again(client: TestClient, folder: Path) -> None:
    url = look(client, folder)["sheet"]
    first = client.get(url)
    assert first.headers["content-type"] == "image/png" and "max-age=60" in first.headers["cache-control"]
    again = client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and not again.content
    (folder / "cat" / "0.png").unlink()
    assert client.get(url, headers={"If-None-Match": first.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("url", ["/api/v1/datasets/preview", "/api/v1/datasets/preview/sheet"])
def test_no_folder_outside_the_roots_is_looked_into(client: TestClient, folder: Path, url: str) -> None:
    outside = folder.parents[1] / "elsewhere"
    folder.rename(outside)
    (folder.parent / "link").symlink_to(outside)
    for path in (outside, folder.parent / "link", folder / ".." / ".." / "elsewhere", Path("pets")):
        answer = client.get(url, params={"path": str(path)})
        assert answer.status_code == 422 and "Allowed roots" in answer.json()["hint"], path
        assert [(error["parameter"], error["pointer"]) for error in answer.json()["errors"]] == [("path", "")]
