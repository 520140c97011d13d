"""A data set of the Hugging Face Hub, asked for with the Hub's own client at a stand-in on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from tests.engine.hub import hub
from tests.engine.pictures import COLOURS, photo
from tests.engine.test_parquet import write

ROOT = Path(__file__).parents[2]
PLAN = """
import json, sys
from engine.datasets import describe
from engine.errors import DatasetMissing
from engine.sources import HuggingFace
facts = describe(HuggingFace(name="pets/small"))
try:
    describe(HuggingFace(name="pets/none"))
except DatasetMissing as error:
    refused = error.report.message
print(json.dumps([facts.title, facts.classes, facts.train_per_class, facts.test_per_class, facts.resolution, refused]))
"""
READ = """
import json, sys
from pathlib import Path
from engine.reading import open_origin
from engine.sources import HuggingFace
origin = open_origin(HuggingFace(name="pets/small"), Path(sys.argv[1]), Path(sys.argv[1]))
print(json.dumps([[picture.label, list(picture.load().resize((1, 1)).getpixel((0, 0)))] for picture in origin.train]))
"""


def _run(program: str, address: str, home: Path) -> list[Any]:
    """What a program prints whose Hub is at this address: the client reads it when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", program, str(home)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    told: list[Any] = json.loads(done.stdout)
    return told


def test_a_set_is_planned_without_fetching_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    noise = np.random.default_rng(0).bytes(20_000)
    for split, count in (("train", 400), ("test", 20)):
        write(root / "default" / split / "0000.parquet", [0, 1, 2])
        table = pq.read_table(root / "default" / split / "0000.parquet")
        first = table["image"][0].as_py()["bytes"]
        images = [{"bytes": first + noise + bytes([row % 250]), "path": None} for row in range(count)]
        rows = pa.table({"image": images, "label": [row % 3 for row in range(count)]}).cast(table.schema)
        pq.write_table(rows, root / "default" / split / "0000.parquet", use_dictionary=False, write_batch_size=10)
    with hub(root) as (address, answers):
        told = _run(PLAN, address, tmp_path / "home")
    refused = "pets/none cannot be read from the Hugging Face Hub"
    assert told[:5] == ["small", ["ant", "bee", "cat"], [134, 133, 133], [7, 7, 6], 16] and refused in told[5]
    sizes: Counter[str] = Counter()
    for path, size in answers:
        sizes[path] += size
    assert sum(sizes.values()) < (root / "default" / "train" / "0000.parquet").stat().st_size / 2


def test_its_files_are_fetched_and_read(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write(root / "default" / "train" / "0000.parquet", [2, 0, 1, 1])
    write(root / "default" / "validation" / "0000.parquet", [0, 1, 2])
    with hub(root) as (address, _):
        told = _run(READ, address, tmp_path / "home")
    expected = [(label, photo(list(COLOURS.values())[label], row)) for row, label in enumerate((2, 0, 1, 1))]
    assert told == [[label, list(np.asarray(image.resize((1, 1)))[0, 0])] for label, image in expected]
