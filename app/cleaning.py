"""An uploaded image as nothing but its picture: no EXIF, no colour profile, no comment, no second file behind the first.

Forms without loss are written anew from their pixels, as PNG. JPEG and lossy WebP keep their coded picture, bit for bit, and
lose all around it: written anew without loss they would take many times the room, and with loss they would be other pixels
(docs/decisions/0011). Which side is up is part of the picture: a JPEG keeps that one number, others are turned.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator

from PIL import ExifTags, Image

from engine.upright import UPRIGHT, side_up, upright

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")  # whatever a file is called, no other decoder is ever asked
LEVEL = 1  # of zlib: a third of the time of the usual one, and some per cent more bytes
START, END, SCAN = 0xD8, 0xD9, 0xDA
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length: they carry nothing
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD})  # Huffman, arithmetic, quantisation, lines, restarts
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
KEPT = TABLES | FRAMES
JFIF, ADOBE = (0xE0, b"JFIF\0", 14), (0xEE, b"Adobe", 12)  # marker, name, length of what says how colours are coded
NEXT = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # what ends a scan
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI", ExifTags.Base.Orientation, 3, 1)
PICTURE = (b"ALPH", b"VP8 ")  # chunks of a lossy WebP


def clean(data: bytes) -> bytes:
    """The same picture in a file with nothing else, which decodes to the same pixels the same way up.

    It was decoded whole, or what Pillow raises is raised; what Pillow only warns of is raised too.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Corrupt EXIF")  # which is not kept
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            coded = _coded(data, image)
            if coded is None:
                image.load()
                return _written_anew(image)
        with Image.open(io.BytesIO(coded), formats=FORMATS) as image:
            image.load()
        return coded


def _coded(data: bytes, image: Image.Image) -> bytes | None:
    """A lossy file without all that is not the picture; None where it is none, or has to be turned."""
    if image.format in {"JPEG", "MPO"}:  # MPO: a JPEG with more of them behind
        return b"".join(_jpeg(data, side_up(image)))
    if image.format == "WEBP" and side_up(image) == UPRIGHT and not getattr(image, "is_animated", False):
        return _webp(data)
    return None


def _written_anew(image: Image.Image) -> bytes:
    """A PNG of the pixels, upright, in the mode that they were decoded to."""
    made = io.BytesIO()
    turned = upright(image)
    for name in set(turned.info) - {"transparency"}:
        del turned.info[name]
    turned.save(made, "PNG", compress_level=LEVEL, exif=b"", icc_profile=None)
    return made.getvalue()


def _jpeg(data: bytes, side: int) -> Iterator[bytes]:
    """The pieces of the first picture of a JPEG: tables, frame and scans, and what says how its colours are coded.

    A file that ends too early yields what it has, without an end: it is for the decoder to say that it is damaged.
    """
    yield b"\xff\xd8"
    head = b"" if side == UPRIGHT else _segment(0xE1, EXIF + struct.pack(">HHI", side, 0, 0))
    at = 2
    while (found := NEXT.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == END:
            yield b"\xff\xd9"
            return
        if marker in ALONE or marker == START:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        body, at = data[at + 2 : at + length], at + max(length, 2)
        if marker in {JFIF[0], ADOBE[0]}:
            yield from _colours(marker, body)
        elif marker in KEPT or marker == SCAN:
            yield head
            head = b""
            yield _segment(marker, body)
        if marker == SCAN:
            ends = NEXT.search(data, at)
            stop = len(data) if ends is None else ends.start()
            yield data[at:stop]
            at = stop


def _colours(marker: int, body: bytes) -> Iterator[bytes]:
    for known, name, length in (JFIF, ADOBE):
        if marker == known and body.startswith(name) and len(body) >= length:
            kept = body[:length]
            yield _segment(marker, kept[:12] + b"\0\0" if known == JFIF[0] else kept)  # without a thumbnail


def _segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body


def _webp(data: bytes) -> bytes | None:
    """A lossy WebP of its coded picture, and its transparency where it has one; None for one without loss."""
    chunks = dict(_chunks(data))
    if b"VP8 " not in chunks:
        return None
    kept = [(name, chunks[name]) for name in PICTURE if name in chunks]
    if b"ALPH" in chunks:
        head = chunks.get(b"VP8X", b"")
        kept.insert(0, (b"VP8X", b"\x10\0\0\0" + head[4:10]))
    body = b"".join(name + len(part).to_bytes(4, "little") + part + b"\0" * (len(part) % 2) for name, part in kept)
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk, the last of a name first, so that the first one counts."""
    at, found, end = 12, [], min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return iter(reversed(found))
