"""What a spec asks for that its data set cannot give, each with the field at fault and the remedy. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from engine.datasets import Facts
from engine.errors import SpecInvalid
from engine.networks import NETWORKS, SMALL_BELOW_PX
from engine.spec import Fadrm, JobSpec, RandomReal


def impossibilities(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    """Nothing when the spec can be run."""
    yield from _too_few_images(spec, facts)
    if isinstance(spec.method, Fadrm) and spec.method.sizes:
        yield from _bad_sizes(spec.method.sizes, facts.resolution)
    yield from _misfits(spec, facts.resolution)


def _too_few_images(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    smallest = min(facts.train_per_class)
    name = facts.classes[facts.train_per_class.index(smallest)]
    factor = spec.patches.factor
    tiles = spec.ipc * factor**2
    if spec.ipc > smallest:
        yield SpecInvalid(
            f"ipc is {spec.ipc}, but class {name!r} has only {smallest} training images.",
            hint=f"Choose an ipc of at most {smallest}, or add images to the class.",
            pointer="/ipc",
        )
    elif not _takes_patches(spec):
        return
    elif tiles > smallest:
        fewer = f", or ipc to at most {smallest // factor**2}" if smallest >= factor**2 else ""
        yield SpecInvalid(
            f"{spec.ipc} patches of {factor}x{factor} crops need {tiles} images per class, "
            f"but class {name!r} has only {smallest}.",
            hint=f"Set patches.factor to 1{fewer}.",
            pointer="/patches/factor",
        )
    elif tiles > spec.patches.candidates:
        yield SpecInvalid(
            f"patches.candidates is {spec.patches.candidates}, but {tiles} crops per class are to be chosen.",
            hint=f"Set patches.candidates to at least {tiles}.",
            pointer="/patches/candidates",
        )


def _takes_patches(spec: JobSpec) -> bool:
    return not isinstance(spec.method, RandomReal) or not {"rded", "patches"}.isdisjoint(spec.evaluation.baselines)


def _bad_sizes(sizes: tuple[int, ...], resolution: int) -> Iterator[SpecInvalid]:
    if sizes[-1] != resolution:
        yield SpecInvalid(
            f"The last of method.sizes is {sizes[-1]} px, but the images are {resolution} px.",
            hint=f"End with {resolution}: the last stage makes the images that are kept.",
            pointer="/method/sizes",
        )
    if any((size < SMALL_BELOW_PX) != (resolution < SMALL_BELOW_PX) for size in sizes):
        yield SpecInvalid(
            f"method.sizes mixes sides below and from {SMALL_BELOW_PX} px, where networks change their form.",
            hint=f"Keep all sizes {'below' if resolution < SMALL_BELOW_PX else 'at or above'} {SMALL_BELOW_PX} px.",
            pointer="/method/sizes",
        )


def _misfits(spec: JobSpec, resolution: int) -> Iterator[SpecInvalid]:
    """Networks that have no form for the images, or for one of recovery's stages."""
    asked = [(f"/teachers/{index}/network", teacher.network) for index, teacher in enumerate(spec.teachers)]
    asked += [(f"/evaluation/students/{index}", name) for index, name in enumerate(spec.evaluation.students)]
    for pointer, name in asked:
        reason = NETWORKS[name].misfit(resolution)
        if reason:
            fitting = ", ".join(other for other, network in NETWORKS.items() if not network.misfit(resolution))
            yield SpecInvalid(f"{reason}.", hint=f"Choose one of {fitting}.", pointer=pointer)
    sizes = spec.method.sizes or () if isinstance(spec.method, Fadrm) else ()
    for name in dict.fromkeys(teacher.network for teacher in spec.teachers):
        least = NETWORKS[name].smallest_px
        if resolution >= least > min(sizes, default=resolution):
            yield SpecInvalid(
                f"method.sizes begins a stage at {min(sizes)} px, but teacher {name} needs at least {least} px.",
                hint=f"Keep all sizes at {least} px or above, or choose another teacher.",
                pointer="/method/sizes",
            )
