"""A GPU that is none: tensors that say they lie on `cuda:0` and are computed on the CPU, with real numbers.

    with pretended_gpu() as gpu:
        ...                      # torch.cuda.is_available(); .to("cuda:0") works
    gpu.waits                    # what made the CPU wait for the device, or the device for the CPU

What it is strict about is what goes wrong on real ones: tensors of both sides in one operation, waiting where nothing
may be waited for, and graphs, which replay the very kernels on the very memory that was there when they were recorded.
What it cannot tell: speed, and what is only in a real kernel.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
MEMORY = 80 * 2**30  # bytes that it says it has
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "unique_consecutive"}
TAKES_BOTH = {"copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_"}
TAKES_NO_SCALAR_OF_THE_CPU = {"cat", "stack", "mm", "bmm", "addmm"}
MAKES_ROOM = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}  # and launches nothing
INDEXES = {"index", "index_put_", "index_put", "_index_put_impl_"}
GARBAGE = 7.0  # in memory that was never written


class OnGpu(Tensor):
    """A tensor of the pretended device. Its numbers are in `held`."""

    held: Tensor

    @staticmethod
    def __new__(cls: type[OnGpu], held: Tensor) -> OnGpu:
        offset = held.storage_offset()
        made: OnGpu = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=offset, dtype=held.dtype, device=CPU
        )
        made.held = held
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise AssertionError(f"{func}: a tensor outlived its GPU")


class Gpu:
    """What happened on the device."""

    def __init__(self) -> None:
        self.waits: list[str] = []  # in which one side waited for the other
        self.launches = Counter[str]()  # of kernels, by name; a graph is one
        self.bytes_now, self.peak_bytes = 0, 0  # of tensors
        self.taken_bytes, self.peak_taken_bytes = 0, 0  # by the allocator, which keeps what tensors gave up
        self.others_bytes = 0  # of other processes
        self.is_awake = False  # torch wakes CUDA with the first tensor
        self.graph: Graph | None = None  # that is being recorded
        self.heed: Callable[..., None] | None = None  # is told of each kernel: what it is, is given, and gives
        self._sizes: dict[int, int] = {}  # of each piece of memory
        self._here = [False]  # whether what is called makes its tensors on the device

    @property
    def here(self) -> bool:
        return self._here[-1]

    @contextmanager
    def at(self, here: bool) -> Iterator[None]:
        self._here.append(here)
        try:
            yield
        finally:
            self._here.pop()

    def wait(self, what: str) -> None:
        if self.graph is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
        self.waits.append(what)

    def put(self, held: Tensor) -> OnGpu:
        """The tensor as one of the device."""
        storage = held.untyped_storage()
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.bytes_now += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.bytes_now)
            self.taken_bytes, self.is_awake = max(self.taken_bytes, self.bytes_now), True
            self.peak_taken_bytes = max(self.peak_taken_bytes, self.taken_bytes)
            weakref.finalize(storage, self._free, key)
        return OnGpu(held)

    def empty_cache(self) -> None:
        self.wait("empty_cache")
        self.taken_bytes = self.bytes_now

    def wake(self) -> None:
        self.is_awake = True

    def reset_peaks(self) -> None:
        if not self.is_awake:
            raise RuntimeError("Invalid device argument 0: did you call init?")
        self.peak_bytes, self.peak_taken_bytes = self.bytes_now, self.taken_bytes

    def _free(self, key: int) -> None:
        self.bytes_now -= self._sizes.pop(key)

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation in which the device takes part."""
        name = func._schema.name.partition("::")[2]
        self._refuse(func, name, args, kwargs)
        bare, named = tree_map(self._held, (args, kwargs))
        if any(told.alias_info is not None and not told.alias_info.is_write for told in func._schema.returns):  # a view
            told = func(*bare, **named)
        else:
            told = func(*bare, **named) if self.graph is None else self.graph.record(func, bare, named)
            if name not in MAKES_ROOM:
                self.launches[name] += 1
                if self.heed is not None:
                    self.heed(func, bare, named, told)
            elif self.graph is None and told.is_floating_point():
                told.fill_(torch.nan)  # so that nobody reads it in silence
        given = {id(one.held): one for one in tree_leaves((args, kwargs)) if isinstance(one, OnGpu)}
        into_the_cpu = args[0] if name == "copy_" and not isinstance(args[0], OnGpu) else None
        return tree_map(lambda one: self._told(one, given, into_the_cpu), told)

    def _held(self, value: Any) -> Any:
        """A value as a kernel is given it; numbers of the CPU are part of a graph."""
        if isinstance(value, OnGpu):
            return value.held
        return value.clone() if isinstance(value, Tensor) and self.graph is not None else value

    def _told(self, value: Any, given: dict[int, OnGpu], into_the_cpu: Tensor | None) -> Any:
        if not isinstance(value, Tensor) or into_the_cpu is not None:
            return value if into_the_cpu is None else into_the_cpu
        return given[id(value)] if id(value) in given else self.put(value)

    def _refuse(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What a real device would not do, or would wait for."""
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        strangers = [one for one in tensors if not isinstance(one, OnGpu)]
        if name not in TAKES_BOTH and any(one.dim() or name in TAKES_NO_SCALAR_OF_THE_CPU for one in strangers):
            raise RuntimeError(f"{func}: expected all tensors on the same device, but found cuda:0 and cpu")
        if name in INDEXES:
            if not isinstance(args[0], OnGpu):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            for index in filter(lambda one: one is not None, args[1]):
                if index.dtype in (torch.bool, torch.uint8):
                    self.wait("boolean index")
                if not isinstance(index, OnGpu):
                    self.wait("copy to the GPU")
        if name == "copy_" and strangers:
            self.wait("copy to the CPU" if isinstance(args[1], OnGpu) else "copy to the GPU")
        if name in WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.wait(name)


class Graph:
    """Kernels, each with the memory that it read and wrote when it was recorded."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._kernels: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self._before: list[tuple[Tensor, Tensor]] = []  # memory that was there, and what stood in it

    def record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note a kernel. It is done, so that there is a result, but `end` undoes it."""
        for written in _written(func, args, kwargs):
            self._before.append((written, written.clone()))
        told = func(*args, **kwargs)
        self._kernels.append((func, args, kwargs, [one for one in tree_leaves(told) if isinstance(one, Tensor)]))
        return told

    def end(self) -> None:
        """Nothing was done: what is new holds garbage, and all else is as it was."""
        for *_, told in self._kernels:
            for one in told:
                one.fill_(GARBAGE)
        for written, before in reversed(self._before):
            written.copy_(before)

    def replay(self) -> None:
        """The same kernels on the same memory."""
        self._gpu.launches["graph"] += 1
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction(), torch.no_grad():
            for func, args, kwargs, told in self._kernels:
                again = [one for one in tree_leaves(func(*args, **kwargs)) if isinstance(one, Tensor)]
                for one, new in zip(told, again, strict=True):
                    if one is not new:
                        one.copy_(new)


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that a kernel writes over."""
    schema = func._schema
    values = {argument.name: value for argument, value in zip(schema.arguments, args, strict=False)} | kwargs
    names = [one.name for one in schema.arguments if one.alias_info is not None and one.alias_info.is_write]
    if schema.name.endswith("batch_norm"):
        names += ["running_mean", "running_var"]  # its schema keeps that to itself
    return [leaf for name in names for leaf in tree_leaves(values.get(name)) if isinstance(leaf, Tensor)]


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operation: of the device, where a tensor of it takes part."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._gpu = gpu

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        if any(isinstance(one, OnGpu) for one in tensors) or (not tensors and self._gpu.here):
            return self._gpu.run(func, args, kwargs)
        return func(*args, **kwargs)


class _Calls(TorchFunctionMode):
    """Every call by name: what is asked to be on a device is made there."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        here = any(isinstance(one, OnGpu) for one in tree_leaves((args, kwargs)))
        if name in ("to", "cpu", "cuda", "pin_memory", "tolist", "untyped_storage", "numpy", "__array__"):
            special: Callable[..., Any] = getattr(self, f"_{name.strip('_')}")
            return special(func, here, *args, **kwargs)
        device = kwargs.get("device")
        if device is not None:
            here, kwargs["device"] = torch.device(device).type == "cuda", "cpu"
        with self._gpu.at(here):
            made = func(*args, **kwargs)
        if device is not None and here and type(made) is Tensor:  # torch.tensor makes it on the CPU first
            self._gpu.wait("copy to the GPU")
            made = self._gpu.put(made)
        return made

    def _tolist(self, func: Any, here: bool, tensor: Tensor) -> Any:
        if not isinstance(tensor, OnGpu):
            return func(tensor)
        self._gpu.wait("tolist")
        return tensor.held.tolist()

    def _untyped_storage(self, func: Any, here: bool, tensor: Tensor) -> Any:
        return func(tensor.held if isinstance(tensor, OnGpu) else tensor)

    def _numpy(self, func: Any, here: bool, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if here:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return func(tensor, *args, **kwargs)

    _array = _numpy

    def _pin_memory(self, func: Any, here: bool, tensor: Tensor) -> Tensor:
        if here:
            raise RuntimeError("cannot pin 'torch.cuda.Tensor': only dense CPU tensors can be pinned")
        pinned = tensor.clone()
        pinned.is_pretended_pinned = True  # type: ignore[attr-defined]
        return pinned

    def _cpu(self, func: Any, here: bool, tensor: Tensor) -> Tensor:
        return self._moved(tensor, torch.device("cpu"), at_leisure=False)

    def _cuda(self, func: Any, here: bool, tensor: Tensor) -> Tensor:
        return self._moved(tensor, CUDA, at_leisure=False)

    def _to(self, func: Any, here: bool, tensor: Tensor, *words: Any, **kwargs: Any) -> Tensor:
        device, dtype, at_leisure, copy, layout = _read(*words, **kwargs)
        moved = tensor if device is None else self._moved(tensor, device, at_leisure=at_leisure)
        with self._gpu.at(isinstance(moved, OnGpu)):
            if moved is tensor or (dtype or moved.dtype) != moved.dtype or layout is not torch.preserve_format:
                moved = func(moved, dtype or moved.dtype, copy=copy and moved is tensor, memory_format=layout)
        return moved

    def _moved(self, tensor: Tensor, device: torch.device, *, at_leisure: bool) -> Tensor:
        there = device.type == "cuda"
        if isinstance(tensor, OnGpu) == there:
            return tensor
        what = "copy to the GPU" if there else "copy to the CPU"
        if self._gpu.graph is not None or not (there and at_leisure and hasattr(tensor, "is_pretended_pinned")):
            self._gpu.wait(what)
        moved: Tensor = _Move.apply(tensor, there, self._gpu)
        return moved


def _read(
    *words: Any,
    device: Any = None,
    dtype: torch.dtype | None = None,
    non_blocking: bool = False,
    copy: bool = False,
    memory_format: torch.memory_format | None = None,
) -> tuple[torch.device | None, torch.dtype | None, bool, bool, torch.memory_format]:
    """What `Tensor.to` was asked for."""
    rest = list(words)
    if rest and isinstance(rest[0], Tensor):
        device, dtype = rest[0].device, rest.pop(0).dtype
    elif rest and not isinstance(rest[0], torch.dtype):
        device = rest.pop(0)
    if rest and (rest[0] is None or isinstance(rest[0], torch.dtype)):
        dtype = rest.pop(0)
    if rest:
        non_blocking = rest.pop(0)
    found = None if device is None else torch.device(device)
    return found, dtype, non_blocking, copy, memory_format or torch.preserve_format


class _Move(torch.autograd.Function):
    """From one side to the other, and its gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, there: bool, gpu: Gpu) -> Tensor:
        ctx.gpu, ctx.back = gpu, not there
        with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
            held = (tensor if there else tensor.held).detach()  # type: ignore[attr-defined]
            copied = held.clone(memory_format=torch.preserve_format)
        return gpu.put(copied) if there else copied

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Move.apply(grad, ctx.back, ctx.gpu), None, None


class _Autocast(torch.autocast):
    """Of the device's tensors, which torch takes for the CPU's."""

    def __init__(self, device_type: str, **kwargs: Any) -> None:
        super().__init__("cpu", **kwargs)


def _grouped(tensors: list[list[Tensor | None]], with_indices: bool = False) -> dict[Any, Any]:
    """An optimiser's tensors by device and type: all of the GPU, or all of the CPU."""
    found = _foreach_utils._group_tensors_by_device_and_dtype(tensors, with_indices)
    there = isinstance(tensors[0][0], OnGpu)
    return {(CUDA if there else device, dtype): group for (device, dtype), group in found.items()}


@contextmanager
def pretended_gpu() -> Iterator[Gpu]:
    """From here on there is one GPU, `cuda:0`; its tensors are of no use afterwards."""
    gpu = Gpu()

    @contextmanager
    def recording(graph: Graph, **_: Any) -> Iterator[None]:
        gpu.graph, chance = graph, torch.get_rng_state()
        try:
            yield
        finally:
            gpu.graph = None
            graph.end()
            torch.set_rng_state(chance)

    def set_device(device: torch.device) -> None:
        if device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got: {device}")
        gpu.wake()

    pretended = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_capability": lambda _=None: (9, 0),
        "get_device_name": lambda _=None: "pretended",
        "set_device": set_device,
        "init": gpu.wake,
        "mem_get_info": lambda _=None: (MEMORY - gpu.others_bytes - gpu.taken_bytes, MEMORY),
        "memory_allocated": lambda _=None: gpu.bytes_now,
        "memory_reserved": lambda _=None: gpu.taken_bytes,
        "max_memory_allocated": lambda _=None: gpu.peak_bytes,
        "max_memory_reserved": lambda _=None: gpu.peak_taken_bytes,
        "reset_peak_memory_stats": lambda _=None: gpu.reset_peaks(),
        "synchronize": lambda _=None: gpu.wait("synchronize"),
        "empty_cache": gpu.empty_cache,
        "get_rng_state": lambda _=None: torch.get_rng_state(),
        "set_rng_state": lambda state, _=None: torch.set_rng_state(state),
        "graph_pool_handle": lambda: (0, 1),
        "CUDAGraph": lambda: Graph(gpu),
        "graph": recording,
    }
    stream = type("Stream", (), {"is_capturing": lambda _: gpu.graph is not None})()
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with ExitStack() as stack:
        for name, value in pretended.items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch.object(torch.accelerator, "current_accelerator", lambda **_: CUDA))
        stack.enter_context(patch.object(torch.accelerator, "current_stream", lambda *_: stream))
        stack.enter_context(patch.object(torch, "autocast", _Autocast))
        stack.enter_context(patch("engine.passes.on_gpu", lambda *_: None))  # its kernels would take nothing of this
        grouping = "_group_tensors_by_device_and_dtype"
        stack.enter_context(patch.object(torch.optim.Optimizer, grouping, staticmethod(_grouped)))
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrites)
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Kernels(gpu))
        stack.enter_context(_Calls(gpu))
        yield gpu
