"""NumPy's .npy files as tensors that stay on the disk, without NumPy: the download's own loader uses this file too.

Only what the engine writes: version 1 headers, C order, little-endian numbers.
"""

import ast
import mmap
import os
import struct
from math import prod
from pathlib import Path

import torch
from torch import Tensor

MAGIC = b"\x93NUMPY\x01\x00"
ALIGNMENT = 64  # bytes; the data begin at a multiple of it
DESCRIPTIONS: dict[torch.dtype, str] = {
    torch.uint8: "|u1",
    torch.bool: "|b1",
    torch.int8: "|i1",
    torch.int16: "<i2",
    torch.uint16: "<u2",
    torch.int32: "<i4",
    torch.int64: "<i8",
    torch.float16: "<f2",
    torch.float32: "<f4",
    torch.float64: "<f8",
}
DTYPES = {description: dtype for dtype, description in DESCRIPTIONS.items()}


def create(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A new array of zeros on the disk; what is written to the tensor is written to the file.

    Its room is taken at once: a full disk is an OSError here, and not a SIGBUS in the middle of the work.
    """
    head = _header(shape, dtype)
    size = len(head) + prod(shape) * dtype.itemsize
    with path.open("w+b") as file:
        file.write(head)
        file.flush()
        os.posix_fallocate(file.fileno(), 0, size)
        return _tensor(mmap.mmap(file.fileno(), size), shape, dtype, len(head))


def write(path: Path, values: Tensor) -> None:
    """Write a tensor as an array."""
    create(path, tuple(values.shape), values.dtype).copy_(values)


def read(path: Path, *, writable: bool = False) -> Tensor:
    """An array that is read from the disk where it is touched.

    What is written to the tensor goes to the file when it is `writable`, and leaves the file alone when not.
    Raises ValueError when the file is no array of this kind, or shorter than it says.
    """
    with path.open("r+b" if writable else "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} is no .npy file of version 1")
        (length,) = struct.unpack("<H", file.read(2))
        facts = ast.literal_eval(file.read(length).decode("latin1"))
        if facts["fortran_order"] or facts["descr"] not in DTYPES:
            raise ValueError(f"{path} holds {facts['descr']} in an order or type that is not read here")
        shape, dtype, start = facts["shape"], DTYPES[facts["descr"]], len(MAGIC) + 2 + length
        if os.fstat(file.fileno()).st_size < start + prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is shorter than its header says")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_COPY
        return _tensor(mmap.mmap(file.fileno(), 0, access=access), shape, dtype, start)


def _header(shape: tuple[int, ...], dtype: torch.dtype) -> bytes:
    facts = repr({"descr": DESCRIPTIONS[dtype], "fortran_order": False, "shape": shape}).encode("latin1")
    taken = len(MAGIC) + 2 + len(facts) + 1
    facts += b" " * (-taken % ALIGNMENT) + b"\n"
    return MAGIC + struct.pack("<H", len(facts)) + facts


def _tensor(memory: mmap.mmap, shape: tuple[int, ...], dtype: torch.dtype, start: int) -> Tensor:
    if prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=prod(shape), offset=start).view(shape)
