"""How much memory a step takes, roughly: it is begun by workers that have so much. Torch-free.

What a backward pass keeps is counted from the networks (a test holds the table to them); what a process takes beside that
is a figure of its own. Estimates are meant to be a little too high, and to be within a factor of two for work of some size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from engine.datasets import Facts
from engine.networks import LARGE_PX, NETWORKS, SMALL_BELOW_PX, SMALL_PX, looked_at_together
from engine.plan.graph import Step, StepKind
from engine.spec import TRAINED, JobSpec

GIB = 2**30
PROCESS_BYTES = GIB  # of an engine with its libraries; two at work on CIFAR-10 with CPU torch had at most 0.9 and 1.1, images among it
WORKSPACE_BYTES = GIB // 4  # of convolutions, and what an allocator keeps beside what is asked for
RESIDENT_BYTES = 4 * GIB  # of real images at most: larger arrays are read from the disk as they are touched
NUMBER_BYTES = 4  # float32; with bfloat16 it is less
TRAINED_COPIES = 4  # weights, gradients, and two moments of the optimiser
TOGETHER_BYTES = GIB  # that recovery lets autograd keep, where blocks of images may share a batch
FORWARD_SHARE = 0.3  # of what a backward pass would keep, alive at once where there is none

# Millions of numbers that autograd keeps of one image until the backward pass: at 32 px in the small form, and at 224 px.
KEPT_M: dict[str, tuple[float, float | None]] = {
    "resnet18": (1.175, 5.545),
    "resnet18_w16": (0.296, None),
    "resnet50": (6.378, 21.48),
    "resnet101": (9.721, 31.71),
    "wide_resnet50_2": (8.525, 28.05),
    "densenet121": (9.941, 32.59),
    "densenet169": (12.14, 39.33),
    "densenet201": (15.87, 50.74),
    "mobilenet_v2": (3.402, 19.55),
    "shufflenet_v2_x0_5": (0.636, 2.764),
    "shufflenet_v2_x1_0": (1.398, 5.096),
    "efficientnet_b0": (1.81, 22.05),
    "swin_t": (2.149, 26.66),
    "alexnet": (0.366, 0.935),
    "convnet3": (0.388, None),
    "convnet4": (0.394, None),
    "convnet5": (0.396, 19.39),
    "convnet6": (0.396, 19.41),
    "convnet3_w32": (0.099, None),
}


class Memory(NamedTuple):
    """What a step takes at its peak, bytes."""

    host_bytes: int  # of the engine process
    device_bytes: int  # of its tensors, wherever it computes: beside host_bytes where that is the CPU


def needed(step: Step, spec: JobSpec, facts: Facts) -> Memory:
    """What a step of this job takes."""
    tensors = _tensors(step, spec, facts)
    if not tensors:
        return Memory(PROCESS_BYTES, 0)
    images = min((facts.train_images + facts.test_images) * 3 * facts.resolution**2, RESIDENT_BYTES)
    return Memory(PROCESS_BYTES, int(tensors) + images + WORKSPACE_BYTES)


def blocks_together(networks: Iterable[str], *, side: int, block: int) -> int:
    """How many blocks of so many images of that side, px, recovery takes as one batch.

    The same wherever it runs: on a small image's network a GPU is full by then, and a CPU gains no more (measured).
    """
    kept = block * max(_kept(name, side) for name in networks)
    return max(1, int(TOGETHER_BYTES / kept))


def _tensors(step: Step, spec: JobSpec, facts: Facts) -> float:
    """Bytes of networks and of what they keep; 0 where none is used."""
    params, side = step.params, facts.resolution
    networks = [teacher.network for teacher in spec.teachers]
    match step.kind:
        case StepKind.TEACH:
            teacher = params["teacher"]
            name, trains = teacher["network"], teacher["weights"] == TRAINED
            taken = _training(name, teacher["batch_size"], side) if trains else _weights(name)
        case StepKind.OBSERVE:
            taken = max(_looking([name], _looked_at(side), side) for name in networks)
        case StepKind.SELECT:
            taken = 0.0 if params["choice"] == "random" else _looking(networks[:1], _looked_at(side), side)
        case StepKind.RECOVER:
            recipe = params["recipe"]
            block, ipcs = min(recipe["batch"], len(facts.classes)), params["ipc_stop"] - params["ipc_start"]
            alone = recipe["teachers"] != "turns" and len(networks) > 1
            blocks = 1 if alone else min(ipcs, blocks_together(networks, side=max(recipe["sizes"]), block=block))
            asked = 2 if recipe["teachers"] == "pairs" else 1
            kept = max(_kept(name, max(recipe["sizes"])) for name in networks)
            taken = sum(map(_weights, networks)) + asked * blocks * block * kept
        case StepKind.RELABEL:
            labels = params["labels"]
            taken = (
                0.0 if labels["recipe_only"] else _looking(networks, max(labels["batch_size"], _looked_at(side)), side)
            )
        case StepKind.EVALUATE | StepKind.CONTINUAL:
            batch = params["plan"]["batch_size"]
            answers = step.kind == StepKind.CONTINUAL or params["plan"]["recipe_only"]
            learning = _training(params["student"], batch, side) + (_looking(networks, batch, side) if answers else 0.0)
            taken = max(learning, _looking([params["student"]], _looked_at(side), side))
        case _:
            taken = 0.0
    return taken


def _training(name: str, images: int, side: int) -> float:
    """Of a network that learns from so many images at once."""
    return TRAINED_COPIES * _weights(name) + images * _kept(name, side)


def _looking(names: list[str], images: int, side: int) -> float:
    """Of networks that only look, one after another."""
    return sum(map(_weights, names)) + FORWARD_SHARE * images * max(_kept(name, side) for name in names)


def _looked_at(side: int) -> int:
    """Images that a network looks at in one go: on a GPU, as they are never fewer there."""
    return looked_at_together(side, "cuda")


def _weights(name: str) -> float:
    return NUMBER_BYTES * 1e6 * NETWORKS[name].parameters_m


def _kept(name: str, side: int) -> float:
    """Of one image until the backward pass: proportional to its pixels."""
    small, large = KEPT_M[name]
    if side < SMALL_BELOW_PX or large is None:
        return NUMBER_BYTES * 1e6 * small * (side / SMALL_PX) ** 2
    return NUMBER_BYTES * 1e6 * large * (side / LARGE_PX) ** 2
