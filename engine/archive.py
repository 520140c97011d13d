"""Zip files whose bytes depend on their content alone: fixed times, the order of adding, nothing compressed twice.

And where in a download an image lies.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.store import FileEntry, sha256_of_file

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can name
MODE = 0o644 << 16
TEXT = frozenset({".json", ".md", ".py", ".txt"})
SUMS = "SHA256SUMS"


class Archive:
    """A zip file under construction. `files` says what is in it so far; closing adds SHA256SUMS."""

    def __init__(self, path: Path) -> None:
        self.files: dict[str, FileEntry] = {}
        self._zip = zipfile.ZipFile(path, "w")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.add(SUMS, "".join(f"{entry.sha256}  {name}\n" for name, entry in self.files.items()).encode())
        self._zip.close()

    def add(self, name: str, data: bytes) -> None:
        """Put bytes in, under a name with slashes."""
        self._zip.writestr(_info(name), data)
        self.files[name] = FileEntry(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def add_file(self, name: str, path: Path) -> None:
        """Put a file in, however large."""
        size = path.stat().st_size
        info = _info(name)
        info.file_size = size
        with path.open("rb") as source, self._zip.open(info, "w", force_zip64=size >= 2**31) as target:
            shutil.copyfileobj(source, target, 2**20)
        self.files[name] = FileEntry(size_bytes=size, sha256=sha256_of_file(path))


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix, on every system
    info.external_attr = MODE
    info.compress_type = zipfile.ZIP_DEFLATED if Path(name).suffix in TEXT else zipfile.ZIP_STORED
    return info


def class_folder(label: int, name: str) -> str:
    """A folder name that sorts by class index, on every file system: `00003_tench`."""
    return f"{label:05d}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:40]}"


def image_file(label: int, name: str, ipc: int) -> str:
    """The name of an image in a download: ImageFolder's order of them is class-major, as their labels sort."""
    return f"images/{class_folder(label, name)}/{ipc:05d}.png"
