"""Hugging Face parquet: PNG files and class labels, with the features in the schema as `datasets` writes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from engine.archive import image_file
from engine.export.material import Material

GROUP = 100  # images of a row group: what is read at once


def parquet(material: Material, path: Path) -> Iterator[int]:
    """image: bytes and path of a PNG file; label: int64, whose names are those of the classes."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema({"image": image, "label": pyarrow.int64()}, {"huggingface": _features(material.classes)})
    files = material.files()
    with ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, material.count, GROUP):
            rows = [
                {"image": {"bytes": data, "path": _flat(label, material.classes[label], ipc)}, "label": label}
                for label, ipc, data in islice(files, GROUP)
            ]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema))
            yield start + len(rows)


def _flat(label: int, name: str, ipc: int) -> str:
    return image_file(label, name, ipc).removeprefix("images/").replace("/", "_")


def _features(classes: tuple[str, ...]) -> str:
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    return json.dumps({"info": {"features": features}}, ensure_ascii=False)
