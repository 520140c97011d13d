"""PNG files of 8-bit RGB, written and read with the standard library alone: the download's own loader uses this file too.

Rows are stored unfiltered (filter 0), so equal pixels give equal bytes wherever zlib is the same.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGB_8_BIT = bytes((8, 2, 0, 0, 0))  # depth, colour type, compression, filter method, interlace


def encode(pixels: Tensor) -> bytes:
    """(3, H, W) uint8 -> the bytes of a PNG file."""
    _, height, width = pixels.shape
    rows = F.pad(pixels.cpu().permute(1, 2, 0).reshape(height, width * 3), (1, 0))  # a 0 before each row: no filter
    head = struct.pack(">II", width, height) + RGB_8_BIT
    body = zlib.compress(_bytes(rows), 6)
    return SIGNATURE + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def decode(data: bytes) -> Tensor:
    """The bytes of a PNG file that `encode` made -> (3, H, W) uint8. Raises ValueError for other kinds of PNG."""
    if not data.startswith(SIGNATURE):
        raise ValueError("these bytes are no PNG file")
    chunks = dict(_chunks(data))  # several IDAT chunks: `_chunks` joins them
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = torch.frombuffer(bytearray(zlib.decompress(chunks[b"IDAT"])), dtype=torch.uint8)
    if chunks[b"IHDR"][8:] != RGB_8_BIT or rows.numel() != height * (1 + 3 * width):
        raise ValueError("only 8-bit RGB without interlacing is read here: use Pillow for other PNG files")
    rows = rows.view(height, 1 + 3 * width)
    if rows[:, 0].any():
        raise ValueError("this PNG was saved again by another program, with row filters: use Pillow to read it")
    return rows[:, 1:].reshape(height, width, 3).permute(2, 0, 1).contiguous()


def read(path: Path) -> Tensor:
    """A PNG file -> (3, H, W) uint8."""
    return decode(path.read_bytes())


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and body of each chunk, the IDAT chunks joined to one."""
    at, pixels = len(SIGNATURE), bytearray()
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IDAT":
            pixels += body
        else:
            yield kind, body
    yield b"IDAT", bytes(pixels)
