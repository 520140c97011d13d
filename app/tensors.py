"""The head of a safetensors file from somebody we do not know: read, and held against the file's size. No tensor is read.

The form: 8 bytes with the length of a header, the header, which is a JSON object, then the tensors' bytes one after another
without a gap. What files try: pickles, bloated headers, ranges that overlap or lead out of the file.
`main` is the program that `app.confined` runs it as.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app import cage
from app.cage import Refusal, short

LENGTH_BYTES = 8
MOST_HEADER_BYTES = 10**6
MOST_TENSORS = 10_000
MOST_DIMENSIONS = 8
LONGEST_NAME = 300
METADATA = "__metadata__"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
DTYPES = FLOATS | {"I64": 8, "I32": 4}  # integers: counters of batches
TORCH_SAVE = (
    b"PK\x03\x04",
    b"\x80\x02",
    b"\x80\x03",
    b"\x80\x04",
    b"\x80\x05",
)  # what torch.save writes, today and of old
CONVERT = "python -m engine.convert IN.pth OUT.safetensors --network NAME"  # engine.shapes has it; this imports nothing
AGAIN = "Write it again by safetensors' own save_file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file holds, by name."""

    dtypes: list[str]  # of its floating-point tensors, each once
    shapes: dict[str, tuple[int, ...]]


def main() -> None:
    """The program: the path of a file to its header."""
    cage.run(lambda order: asdict(read(Path(order["file"]))))


def read(path: Path) -> Header:
    """The header of a file, which the file's size agrees with. Raises Refusal."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(LENGTH_BYTES)
        length, is_opened = int.from_bytes(head, "little"), file.read(1) == b"{"
        if not is_opened and head.startswith(TORCH_SAVE):
            raise Refusal(
                "The file is no safetensors but what torch.save writes, which can run code when it is opened.",
                f"Make a .safetensors file of it on a machine of yours: {CONVERT}",
            )
        if not is_opened:
            raise Refusal("The file is no safetensors.", f"Make one, from a .pth file for instance: {CONVERT}")
        if length > MOST_HEADER_BYTES:
            raise Refusal(
                f"The header says that it has {length:,} bytes, and the limit is {MOST_HEADER_BYTES:,}.",
                f"Save the weights alone, without metadata and other tensors. {AGAIN}",
            )
        if length > size_bytes - LENGTH_BYTES:
            raise Refusal("The file ends within its header: it was cut off.", "Send it again, whole.")
        file.seek(LENGTH_BYTES)
        entries = _entries(file.read(length))
    _refuse_gaps(entries, size_bytes - LENGTH_BYTES - length)
    return Header(
        dtypes=sorted({dtype for dtype, _, _ in entries.values()} & FLOATS.keys()),
        shapes={name: shape for name, (_, shape, _) in entries.items()},
    )


Entry = tuple[str, tuple[int, ...], tuple[int, int]]  # type, shape, first byte and the one after the last


def _entries(header: bytes) -> dict[str, Entry]:
    """Name -> tensor. Raises Refusal."""
    try:
        found = json.loads(header, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"The header cannot be read: {short(str(error))}.", AGAIN) from error
    if not isinstance(found, dict):
        raise Refusal("The header is no JSON object.", AGAIN)
    found.pop(METADATA, None)  # words of whoever wrote it: nothing here needs them
    if not found:
        raise Refusal("The file holds no tensor.", "Save the state_dict() of a trained network.")
    if len(found) > MOST_TENSORS:
        raise Refusal(f"The file holds {len(found):,} tensors, and the limit is {MOST_TENSORS:,}.", "Send one network.")
    return {name: _entry(name, value) for name, value in found.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is in it twice")
    return found


def _entry(name: str, value: Any) -> Entry:
    shown = short(name)
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Refusal(f"{shown} is no name of a tensor that is taken here.", f"At most {LONGEST_NAME} printed letters.")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refusal(f"The header does not say type, shape and place of {shown}.", AGAIN)
    dtype, shape, place = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise Refusal(
            f"{shown} is of type {short(str(dtype))}, which is not taken here.",
            f"Save it as one of {', '.join(DTYPES)}.",
        )
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS or not _are_sizes(place) or len(place) != 2:
        raise Refusal(f"The header gives {shown} no shape or place that could be.", AGAIN)
    start, end = place
    if end - start != math.prod(shape) * DTYPES[dtype]:
        needed = math.prod(shape) * DTYPES[dtype]
        raise Refusal(f"{shown} has {end - start:,} bytes, and its shape needs {needed:,}.", AGAIN)
    return dtype, tuple(shape), (start, end)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one < 2**48 for one in value)


def _refuse_gaps(entries: dict[str, Entry], size_bytes: int) -> None:
    """Raises Refusal unless the tensors lie one after another, up to the end of the file."""
    at = 0
    for name, (_, _, (start, end)) in sorted(entries.items(), key=lambda one: one[1][2]):
        if start != at:
            word = "overlaps another tensor" if start < at else "does not begin where the one before it ends"
            raise Refusal(f"{short(name)} {word}.", AGAIN)
        at = end
    if at > size_bytes:
        raise Refusal(
            f"The tensors need {at:,} bytes, and the file has {size_bytes:,}: it was cut off.", "Send it again, whole."
        )
    if at < size_bytes:
        raise Refusal(f"{size_bytes - at:,} bytes follow the last tensor.", AGAIN)
