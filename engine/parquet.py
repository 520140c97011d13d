"""Data sets of parquet files, as the Hugging Face Hub holds them: splits, columns, classes and labels. Torch-free.

Of the files, only footers, the column of labels and one image are read here. pyarrow is imported where it is needed: a
server that plans no such set does without it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from engine.errors import DatasetInvalid, DatasetMissing
from engine.folders import NAMED, held_back
from engine.sources import HuggingFace
from engine.spec import sha256_of

TEST_SPLITS = ("test", "validation", "valid", "val")
DEEP = 3  # levels of folders in which files are looked for
READERS = 8  # files whose labels are read at once
PIECE = 2**16  # bytes that are read at a time: of a file on the Hub, no whole row group for one image
IMAGE, LABEL = "/dataset/image_column", "/dataset/label_column"
Found = TypeVar("Found")
NUMBERED = re.compile(r"(.+?)[-_.]\d+(-of-\d+)?([-_.]\w+)?")  # train-00000-of-00002, test_0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One parquet file, here or on the Hub."""

    path: str  # in the data set
    version: str  # changes when the content does
    open: Callable[[], Any]  # what pyarrow reads from: a path or a file
    revision: str = ""  # of the Hub's

    @property
    def split(self) -> str:
        """`train` of data/train-00000-of-00002.parquet and of default/train/0000.parquet."""
        path = PurePosixPath(self.path)
        if path.stem.isdigit() and path.parent.name:
            return path.parent.name
        numbered = NUMBERED.fullmatch(path.stem)
        return numbered[1] if numbered else path.stem

    @property
    def config(self) -> str:
        """The first folder, where it is none of splits; else `default`."""
        first = PurePosixPath(self.path).parts[0]
        return "default" if first in {"data", self.split, PurePosixPath(self.path).name} else first


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Labelled images: rows of the shards, counted through all of them, and the class of each."""

    shards: tuple[Shard, ...]
    numbers: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a data set of parquet files holds."""

    classes: tuple[str, ...]
    image_column: str
    train: Rows
    test: Rows
    digest: str


def shards_of_folder(folder: Path) -> list[Shard]:
    """The parquet files of a folder, by name. Raises DatasetMissing when there is none."""
    found = [path for depth in range(DEEP) for path in folder.glob("/".join(["*"] * depth + ["*.parquet"]))]
    shards = []
    for path in sorted(path for path in found if path.is_file() and not path.name.startswith(".")):
        status = path.stat()
        shards.append(
            Shard(
                path=path.relative_to(folder).as_posix(),
                version=f"{status.st_size} {status.st_mtime_ns}",
                open=path.absolute,
            )
        )
    if not shards:
        raise DatasetMissing(
            f"There is no parquet file in {folder}.",
            hint="Give the folder of a data set as it is downloaded from the Hugging Face Hub, or a folder of classes "
            "as source: folder.",
            pointer="/dataset/name",
        )
    return shards


def contents(spec: HuggingFace, shards: Sequence[Shard]) -> Contents:
    """Classes, columns and the labels of training and test images.

    Raises DatasetMissing without pyarrow, DatasetInvalid for splits or columns that are not there or not clear, files
    that cannot be read, and rows without a label.
    """
    splits = _splits(spec, shards)
    schema = _read(_split(splits, spec.train_split, "/dataset/train_split")[0], lambda file: file.schema_arrow)
    image, label = _columns(spec, schema)
    values = _values(splits[spec.train_split], label)
    named = _features(schema).get(label, {}).get("names")
    known = list(range(len(named))) if named else sorted({value for value in values if value is not None})
    if len(known) < 2:
        raise DatasetInvalid(f"Column {label!r} tells {len(known)} class; at least 2 are needed.", pointer=LABEL)
    classes, index = tuple(map(str, named or known)), {value: place for place, value in enumerate(known)}
    train = _labelled(spec.train_split, splits[spec.train_split], values, index)
    name = spec.test_split or _usual_test(splits, spec.train_split, label, index)
    if name:
        tested = _split(splits, name, "/dataset/test_split")
        test = _labelled(name, tested, _values(tested, label), index)
    else:
        train, test = _parted(train, classes, spec.test_fraction)
    _refuse_empty(classes, train, test)
    used = dict.fromkeys((shard.path, shard.version) for rows in (train, test) for shard in rows.shards)
    return Contents(classes=classes, image_column=image, train=train, test=test, digest=sha256_of(list(used)))


def first_image(found: Contents) -> bytes:
    """The encoded image of the first row, without reading those beside it."""

    def first(file: Any) -> bytes:
        batch = next(file.iter_batches(batch_size=1, row_groups=[0], columns=[found.image_column]))
        return encoded(batch.column(0)[0].as_py())

    return _read(found.train.shards[0], first)


def encoded(cell: Any) -> bytes:
    """The bytes of an image file, of a cell as `datasets` writes it or of bytes alone. Raises ValueError for others."""
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if data is None or isinstance(data, str):
        raise ValueError("the row holds no bytes of an image")
    return bytes(data)


def _splits(spec: HuggingFace, shards: Sequence[Shard]) -> dict[str, list[Shard]]:
    """Split -> its shards, of the configuration that is asked for, is the only one or is called `default`."""
    configs = sorted({shard.config for shard in shards})
    chosen = spec.config or ("default" if "default" in configs else configs[0])
    if chosen not in configs or (not spec.config and len(configs) > 1 and chosen != "default"):
        raise DatasetInvalid(
            f"{spec.name} has no configuration {chosen!r}."
            if spec.config
            else f"{spec.name} has several configurations.",
            hint=f"Choose one of {_named(configs)}.",
            pointer="/dataset/config",
        )
    splits: dict[str, list[Shard]] = {}
    for shard in sorted(shards, key=lambda shard: shard.path):
        if shard.config == chosen:
            splits.setdefault(shard.split, []).append(shard)
    return splits


def _split(splits: dict[str, list[Shard]], name: str, pointer: str) -> list[Shard]:
    if name in splits:
        return splits[name]
    if f"partial-{name}" in splits:
        raise DatasetInvalid(
            f"The Hub holds only a part of split {name!r} as parquet.",
            hint="Download the whole set, write it as parquet or folders of classes, and give the path.",
            pointer=pointer,
        )
    raise DatasetInvalid(
        f"There is no split {name!r}.", hint=f"Choose one of {_named(sorted(splits))}.", pointer=pointer
    )


def _usual_test(splits: dict[str, list[Shard]], train: str, label: str, index: dict[Any, int]) -> str | None:
    """The first split for testing that is labelled: many public test sets are not."""
    for name in TEST_SPLITS:
        if name in splits and name != train and all(value in index for value in _values(splits[name], label)):
            return name
    return None


def _columns(spec: HuggingFace, schema: Any) -> tuple[str, str]:
    """The columns of images and labels: as the features say, else by their types."""
    import pyarrow

    features = _features(schema)
    kinds = {name: str(features.get(name, {}).get("_type", "")) for name in schema.names}
    holds_bytes = [
        field.name for field in schema if pyarrow.types.is_binary(field.type) or "bytes: binary" in str(field.type)
    ]
    images = [name for name in schema.names if kinds[name] == "Image"] or holds_bytes
    labels = [name for name in schema.names if kinds[name] == "ClassLabel"] or [
        field.name for field in schema if pyarrow.types.is_integer(field.type) or pyarrow.types.is_string(field.type)
    ]
    return (
        _column(spec.image_column, images, schema.names, "image", IMAGE),
        _column(spec.label_column, labels, schema.names, "label", LABEL),
    )


def _column(given: str | None, fitting: list[str], names: list[str], what: str, pointer: str) -> str:
    found = given or (what if what in fitting else fitting[0] if len(fitting) == 1 else None)
    if found in names:
        return str(found)
    raise DatasetInvalid(
        f"There is no column {given!r}." if given else f"It is not clear which column holds the {what}s.",
        hint=f"Choose one of {_named(fitting or names)}.",
        pointer=pointer,
    )


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` wrote of the columns; nothing in files of other writers."""
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return dict(told["info"]["features"])
    except (ValueError, LookupError, TypeError):
        return {}


def _values(shards: Sequence[Shard], column: str) -> list[Any]:
    """A column of all rows; of the files nothing else is read."""
    with ThreadPoolExecutor(READERS) as pool:
        parts = pool.map(lambda shard: _read(shard, lambda file: file.read(columns=[column])), shards)
        return [value for part in parts for value in part.column(0).to_pylist()]


def _labelled(split: str, shards: Sequence[Shard], values: list[Any], index: dict[Any, int]) -> Rows:
    for row, value in enumerate(values):
        if value not in index:
            raise DatasetInvalid(
                f"Row {row} of split {split!r} has the label {value!r}, which is none of the {len(index)} classes.",
                hint="Choose a split and a column with a class for every row.",
                pointer=LABEL,
            )
    return Rows(shards=tuple(shards), numbers=tuple(range(len(values))), labels=tuple(index[value] for value in values))


def _parted(rows: Rows, classes: tuple[str, ...], test_fraction: float) -> tuple[Rows, Rows]:
    """Hold back a share of each class for testing, chosen by the hash of the row's number."""
    held: set[str] = set()
    for label, name in enumerate(classes):
        of_class = [str(number) for number, own in zip(rows.numbers, rows.labels, strict=True) if own == label]
        if len(of_class) == 1:
            raise DatasetInvalid(
                f"Class {name!r} has a single image, which cannot be split into training and test.",
                hint="Name a test split.",
                pointer="/dataset/test_split",
            )
        held |= held_back(of_class, test_fraction) if of_class else set()
    return _where(rows, lambda number: str(number) not in held), _where(rows, lambda number: str(number) in held)


def _where(rows: Rows, wanted: Callable[[int], bool]) -> Rows:
    kept = [number for number in rows.numbers if wanted(number)]
    return Rows(shards=rows.shards, numbers=tuple(kept), labels=tuple(rows.labels[number] for number in kept))


def _refuse_empty(classes: tuple[str, ...], train: Rows, test: Rows) -> None:
    for rows, use in ((train, "training"), (test, "testing")):
        empty = sorted(set(range(len(classes))) - set(rows.labels))
        if empty:
            raise DatasetInvalid(
                f"Class {classes[empty[0]]!r} has no image for {use}.",
                hint="Choose splits that hold every class.",
                classes=[classes[label] for label in empty[:20]],
            )


def _read(shard: Shard, look: Callable[[Any], Found]) -> Found:
    """What `look` finds in a shard. Raises DatasetInvalid when it is damaged."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DatasetMissing(
            "Parquet files are read with pyarrow, which is not installed here.",
            hint="Install fadrm[huggingface] on the server and its workers.",
        ) from error
    source = shard.open()
    try:
        with ParquetFile(source, buffer_size=PIECE, pre_buffer=False) as file:
            return look(file)
    except (OSError, ValueError, LookupError, StopIteration) as error:  # pyarrow's own errors are these too
        raise DatasetInvalid(
            f"{shard.path} cannot be read: {str(error) or 'it is empty'}.",
            hint="Download or write it again.",
            file=shard.path,
        ) from error


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[: 2 * NAMED]) + (", ..." if len(names) > 2 * NAMED else "")
