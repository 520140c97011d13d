"""Archives of images as people make them, and as nobody should."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any
from zipfile import ZIP_DEFLATED, ZipInfo

from tests.engine.pictures import COLOURS, photo

FLAT = tuple(f"{name}/{index}.png" for name in ("ant", "bee") for index in range(4))
SPLIT = tuple(
    f"{split}/{name}/{index}.png" for split in ("train", "test") for name in ("ant", "bee") for index in range(3)
)


def png(seed: int = 0, colour: str = "ant") -> bytes:
    """A small picture."""
    made = io.BytesIO()
    photo(COLOURS[colour], seed, (12, 10)).save(made, "PNG")
    return made.getvalue()


def archive(*names: str, more: Mapping[Any, bytes] | None = None, method: int = ZIP_DEFLATED) -> bytes:
    """A zip of pictures under these names (by default two classes of four), and of whatever more: name or ZipInfo -> bytes.

    The same bytes at any time.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as opened:
        for seed, name in enumerate(names or FLAT):
            opened.writestr(ZipInfo(name), png(seed, "bee" if "bee" in name else "ant"), method)
        for written, data in (more or {}).items():
            opened.writestr(written if isinstance(written, ZipInfo) else ZipInfo(written), data, method)
    return made.getvalue()


def entry(name: str, mode: int = 0o100644) -> ZipInfo:
    """An entry with a kind of its own: `mode` as Unix has it."""
    info = ZipInfo("placeholder")
    info.filename = info.orig_filename = name  # past what ZipInfo makes of it
    info.external_attr = mode << 16
    info.create_system = 3
    return info


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same archive with bytes changed everywhere."""
    assert old in data and len(old) == len(new)
    return data.replace(old, new)


def with_flag(data: bytes, bit: int) -> bytes:
    """The same archive with a flag set in the directory's entries."""
    changed = bytearray(data)
    at = data.find(b"PK\x01\x02")
    while at != -1:
        changed[at + 8] |= bit
        at = data.find(b"PK\x01\x02", at + 1)
    return bytes(changed)


def overlapping() -> bytes:
    """Every entry of the directory points at the first one's bytes."""
    data = bytearray(archive())
    at = data.find(b"PK\x01\x02")
    while at != -1:
        data[at + 42 : at + 46] = bytes(4)
        at = data.find(b"PK\x01\x02", at + 1)
    return bytes(data)


def flat_png(side: int) -> bytes:
    """A black square of one bit a pixel: 13,000 a side are 20 kB, and 169 million pixels when they are decoded."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, row = zlib.compressobj(9), bytes(1 + -(-side // 8))
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def mutated(seed: int) -> bytes:
    """An ordinary archive in which some bytes, or some names, or its end are not as they should be. The same for a seed."""
    draw = random.Random(seed)
    names = [
        draw.choice((*SPLIT, *FLAT, "../x.png", "/x.png", "a/b/c/d.png", "ant/", "\u202e/1.png")) for _ in range(6)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile's, of names that are made twice
        data = bytearray(archive(*FLAT, *names[: draw.randrange(6)], method=draw.choice((0, ZIP_DEFLATED))))
    for _ in range(draw.randrange(8)):
        at = draw.randrange(len(data)) if draw.random() < 0.5 else draw.randrange(len(data) * 3 // 4, len(data))
        data[at] = draw.randrange(256)
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)) :]
    return bytes(data)
