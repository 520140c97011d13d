"""On which device and how exactly a forward pass computes. Statistics, losses and images stay fp32 in every case."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from engine.layers import Exact, suited_to_cpu

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_for(wish: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """What "auto" means on this device: bf16 where it multiplies that faster, else fp32."""
    if wish != "auto":
        return wish
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    return "bf16" if device.type == "cpu" and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Whether this machine's CPU has instructions for products of bf16: AMX, or AVX512-bf16."""
    return has_matrix_units() or bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def has_matrix_units() -> bool:
    """Whether this machine's CPU multiplies matrices of bf16 in one instruction: AMX."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Everything inside computes in that precision, by the same algorithm on every run. Never to be held over a `yield`."""
    with ExitStack() as stack:
        if device.type == "cuda":
            flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            stack.enter_context(flags)
        stack.enter_context(torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"))
        yield


def training_layout(device: torch.device, precision: Precision) -> torch.memory_format:
    """The order of a map's values that trains fastest: channels last, but for exact numbers on a CPU.

    There torch's own order is as fast for wide networks, and adds up as the authors' code does.
    """
    exact = device.type == "cpu" and precision == "fp32"
    return torch.contiguous_format if exact else torch.channels_last


def prepared(model: nn.Module, device: torch.device, layout: torch.memory_format = torch.channels_last) -> nn.Module:
    """The same model on the device, its weights in that layout, without what would slow it down there.

    On a CPU some convolutions take another way to the same numbers: see `engine.layers`.
    """
    if device.type == "cpu":
        matrix_units = has_matrix_units()
        for layer in model.modules():
            layer.__class__ = suited_to_cpu(layer, matrix_units=matrix_units)
    return model.to(device).to(memory_format=layout)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The same on the device, for which nobody waits: a GPU takes what was decided on the CPU when it comes to it."""
    if values.device.type == "cpu" and device.type == "cuda":
        return values.contiguous().pin_memory().to(device, non_blocking=True)
    return values.to(device)


def cast(model: nn.Module, precision: Precision) -> nn.Module:
    """A frozen model for passes in one precision: its products' weights are cast here, not again in every pass.

    The same numbers as under autocast alone, and a copy of the weights, unless there is nothing to cast.
    """
    if precision == "fp32":
        return model
    copied = copy.deepcopy(model)
    for layer in copied.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, Exact):
            layer.to(DTYPES[precision])
    return copied


def gradient_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Keeps fp16 gradients from vanishing; does nothing in the other precisions."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")


def scaler_state(scaler: torch.amp.GradScaler) -> dict[str, Tensor]:
    """What a scaler has learnt; empty for one that does nothing."""
    state = scaler.state_dict()
    return {"scaler": torch.tensor([state["scale"], state["_growth_tracker"]])} if state else {}


def restore_scaler(scaler: torch.amp.GradScaler, state: Mapping[str, Tensor]) -> None:
    """Give a scaler back what `scaler_state` took out, if it was in there."""
    if "scaler" in state:
        scale, growth = state["scaler"].tolist()
        scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": int(growth)})
