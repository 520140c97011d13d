"""What an archive that was made to harm costs: `python -m tests.app.bombs`, with the default limits of a server.

With `--generated 5000`, as many archives with random damage: each is taken or refused in words, and none writes elsewhere.
"""

# ruff: noqa: T201 - it speaks to a person

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from app import cage, confined, unpacking
from app.errors import ServiceError
from app.settings import Settings
from app.unpacking import Order
from engine.folders import SUFFIXES, TEST_FOLDERS
from tests.app.archives import FLAT, archive, flat_png, mutated, overlapping

FLAT_25 = flat_png(5_000)
ZEROS = b"BM" + bytes(60_000_000)
BOMBS: dict[str, Callable[[], bytes]] = {
    "one file of zeros, 1,000 : 1": lambda: archive(*FLAT, more={"ant/x.bmp": ZEROS}),
    "40 files of zeros": lambda: archive(*FLAT, more={f"ant/{n}.bmp": ZEROS for n in range(40)}),
    "entries that share their bytes": overlapping,
    "150,000 empty entries": lambda: archive(*FLAT, more={f"ant/{n}.txt": b"" for n in range(150_000)}),
    "250,000 empty entries": lambda: archive(*FLAT, more={f"ant/{n}.txt": b"" for n in range(250_000)}),
    "a PNG of 13,000 x 13,000 in 20 kB": lambda: archive(*FLAT, more={"ant/x.png": flat_png(13_000)}),
    "100 PNGs of 5,000 x 5,000": lambda: archive(*FLAT, more={f"ant/p{n}.png": FLAT_25 for n in range(100)}),
    "a zip in a zip in a zip": lambda: archive(*FLAT, more={"ant/x.png": archive(more={"a/b.png": archive()})}),
}


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generated", type=int, default=0)
    count = parser.parse_args().generated
    records: list[logging.LogRecord] = []
    log = logging.getLogger("app.confined")
    log.setLevel(logging.INFO)
    log.addHandler(Kept(records))
    log.propagate = False
    with tempfile.TemporaryDirectory() as folder:
        if count:
            print(dict(generated(count, Path(folder))))
            return
        print("| Archive | Bytes | Outcome | Peak memory | Seconds |\n|---|---|---|---|---|")
        for number, (name, make) in enumerate(BOMBS.items()):
            path = Path(folder, f"{number}.zip")
            path.write_bytes(make())
            began = time.monotonic()
            try:
                found = confined.unpack(path, Path(folder, str(number)), Settings())
                outcome = f"taken: {found.images} images, {found.size_bytes:,} bytes"
            except ServiceError as error:
                outcome = error.detail
            peak = getattr(records[-1], "peak_bytes", 0) / 2**20
            print(f"| {name} | {path.stat().st_size:,} | {outcome} | {peak:.0f} MiB | {time.monotonic() - began:.1f} |")


def generated(count: int, folder: Path, first: int = 0) -> Counter[str]:
    """Outcomes of so many damaged archives. Raises when one ends otherwise than in words, or leaves something elsewhere."""
    outcomes: Counter[str] = Counter()
    limits = confined.limits_of(Settings())
    for seed in range(first, first + count):
        place = folder / f"seed-{seed}"
        place.mkdir()
        (place / "archive.zip").write_bytes(mutated(seed))
        order = Order(
            archive=str(place / "archive.zip"),
            folder=str(place / "set"),
            skip_bad=False,
            suffixes=SUFFIXES,
            test_folders=frozenset(TEST_FOLDERS),
            limits=limits,
        )
        try:
            unpacking.unpack(order)
            outcomes["taken"] += 1
        except cage.Refusal:
            outcomes["refused"] += 1
        left = {path.name for path in place.iterdir()}
        assert left <= {"archive.zip", "set"}, (seed, left)
        assert {path.suffix for path in (place / "set").rglob("*") if path.is_file()} <= SUFFIXES, seed
    assert {path.name.partition("-")[0] for path in folder.iterdir()} == {"seed"}
    return outcomes


if __name__ == "__main__":
    main()
