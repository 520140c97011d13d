"""Encoded images out of parquet files, row by row, with no more in memory than the row groups that are being read."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from engine.errors import DatasetInvalid
from engine.parquet import encoded

KEPT = 2  # row groups: those in which threads that read in order are at the same time
LARGEST_GROUP = 2**30  # bytes, decoded from parquet


class Images:
    """The images of some parquet files, as rows counted through all of them. Threads may share it."""

    def __init__(self, paths: Sequence[Path], column: str) -> None:
        """Raises DatasetInvalid for a row group that is too large to be held in memory."""
        from pyarrow.parquet import ParquetFile

        self._column = column
        self._groups: list[tuple[Path, int]] = []
        counts: list[int] = []
        for path in paths:
            with ParquetFile(path) as file:
                groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
            if any(group.total_byte_size > LARGEST_GROUP for group in groups):
                raise DatasetInvalid(
                    f"{path} has row groups of more than {LARGEST_GROUP / 2**30:g} GiB, which are read as a whole.",
                    hint="Write it again with row groups of some hundred images.",
                    file=str(path),
                )
            self._groups += [(path, group) for group in range(len(groups))]
            counts += [group.num_rows for group in groups]
        self._starts = [0, *accumulate(counts)]
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._turn = threading.Lock()

    def read(self, row: int) -> bytes:
        """The file of one image. Raises ValueError when the row holds none, OSError when the file is damaged."""
        group = bisect_right(self._starts, row) - 1
        return encoded(self._of(group)[row - self._starts[group]].as_py())

    def _of(self, group: int) -> Any:
        """The column of images of a row group."""
        from pyarrow.parquet import ParquetFile

        with self._turn:
            if group not in self._kept:
                path, place = self._groups[group]
                with ParquetFile(path, memory_map=True) as file:
                    self._kept[group] = file.read_row_group(place, columns=[self._column]).column(0)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return self._kept[group]
