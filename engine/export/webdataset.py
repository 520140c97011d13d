"""A WebDataset: one tar file, whose members of one name but the last suffix are one sample."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from engine.export.material import Material


def webdataset(material: Material, path: Path) -> Iterator[int]:
    """Of each image: `.png`, `.cls` (class index as text), `.json` (label, class, ipc)."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for index, (label, ipc, data) in enumerate(material.files()):
            facts = {"label": label, "class": material.classes[label], "ipc": ipc}
            _add(archive, f"{index:08d}.png", data)
            _add(archive, f"{index:08d}.cls", str(label).encode())
            _add(archive, f"{index:08d}.json", json.dumps(facts, ensure_ascii=False).encode())
            yield index + 1


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # its times are 0: equal images make equal files
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
