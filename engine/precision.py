"""How exactly a forward pass computes. Statistics, losses and images stay fp32 in every case."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_for(wish: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """What "auto" means on this device: bf16 where its matrix units take it, else fp32."""
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return "bf16" if device.type == "cpu" and has_amx() else "fp32"


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Everything inside computes in that precision, by the same algorithm on every run. Never to be held over a `yield`."""
    with ExitStack() as stack:
        if device.type == "cuda":
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            stack.enter_context(flags)
        stack.enter_context(torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"))
        yield
