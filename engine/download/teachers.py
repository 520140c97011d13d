"""Teachers out of a download: networks whose weights are read with torch alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.models import build, frozen
from engine.precision import prepared

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def teachers(facts: dict[str, Any], folder: Path, device: torch.device) -> list[nn.Module]:
    """Those of manifest.json, frozen and in eval mode, whose weights are in `folder`, in order."""
    found = []
    for index, teacher in enumerate(facts["teachers"]):
        model = build(teacher["network"], num_classes=len(facts["classes"]), resolution=facts["resolution"])
        model.load_state_dict(read(folder / f"{index}.safetensors"))
        found.append(prepared(frozen(model), device))
    return found


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file: the header's length (8 bytes), the header (JSON), the numbers."""
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", data[:8])
    header, start = json.loads(data[8 : 8 + length]), 8 + length
    return {name: _tensor(data, entry, start) for name, entry in header.items() if name != "__metadata__"}


def _tensor(data: bytearray, entry: dict[str, Any], start: int) -> Tensor:
    dtype, (first, last) = DTYPES[entry["dtype"]], entry["data_offsets"]
    if first == last:
        return torch.empty(entry["shape"], dtype=dtype)
    values = torch.frombuffer(data, dtype=torch.uint8, count=last - first, offset=start + first)
    return values.clone().view(dtype).view(entry["shape"])
