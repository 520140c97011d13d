"""A folder of parquet files is a data set under the same rules as a folder of classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.app.world import World, spec_body
from tests.engine.test_parquet import write


@pytest.fixture
def folder(world: World) -> Path:
    """Training and test images of three classes under an allowed root."""
    root = world.services.settings.data_roots[0] / "pets"
    write(root / "data" / "train-00000-of-00001.parquet", [0, 1, 2] * 4)
    write(root / "data" / "test-00000-of-00001.parquet", [0, 1, 2])
    return root


def test_a_job_is_planned_with_it(client: TestClient, folder: Path) -> None:
    spec = spec_body(dataset={"source": "huggingface", "name": str(folder)})
    told = client.post("/api/v1/jobs/plan", json={"spec": spec}).json()["dataset"]
    assert told == {"title": "pets", "classes": 3, "train_images": 12, "test_images": 3, "resolution": 16}


def test_no_way_leads_out_of_the_roots(client: TestClient, folder: Path) -> None:
    outside = folder.parents[1] / "elsewhere"
    folder.rename(outside)
    folder.mkdir()
    (folder.parent / "link").symlink_to(outside)
    (folder / "train.parquet").symlink_to(outside / "data" / "train-00000-of-00001.parquet")
    for path in (outside, folder.parent / "link", folder / ".." / ".." / "elsewhere", folder):
        spec = spec_body(dataset={"source": "huggingface", "name": str(path)})
        answer = client.post("/api/v1/jobs/plan", json={"spec": spec})
        assert answer.status_code == 422, path
        assert [error["pointer"] for error in answer.json()["errors"]] == ["/spec/dataset/name"]
        assert answer.json()["hint"]


@pytest.mark.parametrize("name", ["../elsewhere", "./here", "one/two/three", "owner/../name", "", "-x/y"])
def test_a_name_that_is_neither_a_set_of_the_hub_nor_an_absolute_path_is_refused(client: TestClient, name: str) -> None:
    spec = spec_body(dataset={"source": "huggingface", "name": name})
    answer = client.post("/api/v1/jobs/plan", json={"spec": spec})
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/spec/dataset/name"]


def test_a_column_that_is_not_clear_is_pointed_at(client: TestClient, folder: Path) -> None:
    spec = spec_body(dataset={"source": "huggingface", "name": str(folder), "label_column": "kind"})
    [error] = client.post("/api/v1/jobs/plan", json={"spec": spec}).json()["errors"]
    assert error["pointer"] == "/spec/dataset/label_column" and "label" in error["hint"]
