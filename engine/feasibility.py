"""What a spec asks for that its data set cannot give, each with the field at fault and the remedy. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from engine.datasets import Facts, held_back_count
from engine.errors import SpecInvalid
from engine.methods import TITLES, CvDd, FadrmPlus, Gvbsm, Herding, Optimised, RandomReal
from engine.networks import NETWORKS, SMALL_BELOW_PX
from engine.spec import TORCHVISION, TRAINED, UPLOADED, Baseline, JobSpec


def impossibilities(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    """Nothing when the spec can be run."""
    yield from _too_few_images(spec, facts)
    yield from _bad_nesting(spec)
    yield from _bad_number_of_teachers(spec)
    yield from _nothing_to_match(spec)
    yield from _lonely_committee(spec)
    yield from _foreign_weights(spec, facts)
    yield from _missing_weights(spec)
    yield from _bad_storage(spec)
    yield from _bad_groups(spec, facts)
    yield from _labels_not_there(spec)
    if isinstance(spec.method, Optimised) and spec.method.sizes:
        yield from _bad_sizes(spec.method.sizes, facts.resolution)
    yield from _misfits(spec, facts.resolution)


def _bad_nesting(spec: JobSpec) -> Iterator[SpecInvalid]:
    for index, ipc in enumerate(spec.nested):
        if ipc >= spec.ipc:
            yield SpecInvalid(
                f"nested holds {ipc}, but ipc is {spec.ipc}.",
                hint="Name ipcs below the job's own: each is a download of the first images of each class.",
                pointer=f"/nested/{index}",
            )


def _bad_number_of_teachers(spec: JobSpec) -> Iterator[SpecInvalid]:
    least, most = spec.method.TEACHERS
    count, title = len(spec.teachers), TITLES[spec.method.method]
    if least <= count <= most:
        return
    wanted = f"{least}" if least == most else f"{least} to {most}"
    several = " FADRM with several teachers is the method fadrm+." if spec.method.method == "fadrm" else ""
    yield SpecInvalid(
        f"{title} takes {wanted} teacher{'s' if most > 1 else ''}, and {count} {'is' if count == 1 else 'are'} named.",
        hint=f"{'Add' if count < least else 'Remove'} teachers, or choose another method.{several}",
        pointer="/teachers",
    )


def _nothing_to_match(spec: JobSpec) -> Iterator[SpecInvalid]:
    """Teachers without batch norm: FADRM's authors have AlexNet beside others, where it counts by its logits alone."""
    bare = [index for index, teacher in enumerate(spec.teachers) if not NETWORKS[teacher.network].batch_norm]
    beside_others = isinstance(spec.method, FadrmPlus) and len(bare) < len(spec.teachers)
    if not isinstance(spec.method, Optimised) or beside_others:
        return
    title, others = TITLES[spec.method.method], ", ".join(name for name, facts in NETWORKS.items() if facts.batch_norm)
    for index in bare:
        yield SpecInvalid(
            f"{title} matches the statistics of batch norm, and {spec.teachers[index].network} has none.",
            hint=f"Choose one of {others}. FADRM+ takes it beside a teacher that has batch norm.",
            pointer=f"/teachers/{index}/network",
        )


def _lonely_committee(spec: JobSpec) -> Iterator[SpecInvalid]:
    """A committee of networks that are all the same one has nothing to vote on."""
    if not isinstance(spec.method, Gvbsm | CvDd):
        return
    for index, teacher in enumerate(spec.teachers):
        if teacher in spec.teachers[:index]:
            yield SpecInvalid(
                f"{TITLES[spec.method.method]} asks different teachers, and {teacher.network} is named twice.",
                hint="Name another network, or give it another seed.",
                pointer=f"/teachers/{index}",
            )


def _foreign_weights(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    for index, teacher in enumerate(spec.teachers):
        reason = NETWORKS[teacher.network].imagenet_misfit(facts.resolution, len(facts.classes))
        if teacher.weights == TORCHVISION and reason:
            yield SpecInvalid(
                f"{reason}.",
                hint="Train the teacher on these images (train), or name a .safetensors file of such a one.",
                pointer=f"/teachers/{index}/weights",
            )


def _missing_weights(spec: JobSpec) -> Iterator[SpecInvalid]:
    for index, teacher in enumerate(spec.teachers):
        path = Path(teacher.weights)
        if teacher.weights in (TRAINED, TORCHVISION, UPLOADED) or (path.suffix == ".safetensors" and path.is_file()):
            continue
        yield SpecInvalid(
            f"There is no file of weights {teacher.weights}.",
            hint=f"Write {TRAINED}, {TORCHVISION}, or the path of a .safetensors file on the server; "
            "`python -m engine.convert` makes one from a .pth file.",
            pointer=f"/teachers/{index}/weights",
        )


def _labels_not_there(spec: JobSpec) -> Iterator[SpecInvalid]:
    if spec.labels.recipe_only and "fkd" in spec.exports:
        yield SpecInvalid(
            "fkd files are made of soft labels, and labels.recipe_only keeps none.",
            hint="Set labels.recipe_only to false, or remove fkd: train.py of the download makes the labels again.",
            pointer=f"/exports/{spec.exports.index('fkd')}",
        )


def _bad_storage(spec: JobSpec) -> Iterator[SpecInvalid]:
    if spec.labels.recipe_only and spec.labels.top_k is not None:
        yield SpecInvalid(
            "labels.top_k says how much of each label is kept, but with labels.recipe_only none is kept.",
            hint="Remove one of the two.",
            pointer="/labels/top_k",
        )


def _bad_groups(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    wanted = spec.evaluation.continual
    for index, steps in enumerate(() if wanted is None else wanted.steps):
        if steps == len(facts.classes) and spec.ipc == 1:
            yield SpecInvalid(
                f"With ipc 1 and {steps} groups the first student would see a single image, of which batch norm knows nothing.",
                hint="Choose fewer groups.",
                pointer=f"/evaluation/continual/steps/{index}",
            )
        if steps > len(facts.classes):
            yield SpecInvalid(
                f"{len(facts.classes)} classes cannot come in {steps} groups.",
                hint=f"Choose at most {len(facts.classes)}.",
                pointer=f"/evaluation/continual/steps/{index}",
            )


def _too_few_images(spec: JobSpec, facts: Facts) -> Iterator[SpecInvalid]:
    per_class = spec.evaluation.valid_per_class
    usable = [count - held_back_count(count, per_class) for count in facts.train_per_class]
    smallest = min(usable)
    label = usable.index(smallest)
    name, held = facts.classes[label], facts.train_per_class[label] - smallest
    beside = f", beside {held} that evaluation.valid_per_class holds back" if held else ""
    factors = _factors(spec, facts)
    factor = max(factors.values(), default=1)
    tiles = spec.ipc * factor**2
    if spec.ipc > smallest:
        yield SpecInvalid(
            f"ipc is {spec.ipc}, but class {name!r} has only {smallest} training images{beside}.",
            hint=f"Choose an ipc of at most {smallest}, or add images to the class.",
            pointer="/ipc",
        )
    elif not factors:
        return
    elif tiles > smallest:
        fewer = f", or ipc to at most {smallest // factor**2}" if smallest >= factor**2 else ""
        baseline = spec.patches.factor is None and factors.get("patches", 1) < factor
        without = ", or remove the baseline" if baseline else ""
        yield SpecInvalid(
            f"{spec.ipc} {'RDED images' if baseline else 'patches'} of {factor}x{factor} crops need {tiles} images per "
            f"class, but class {name!r} has only {smallest}{beside}.",
            hint=f"Set patches.factor to 1{fewer}{without}.",
            pointer=_baseline(spec, "rded") if baseline else "/patches/factor",
        )
    elif tiles > spec.patches.candidates:
        yield SpecInvalid(
            f"patches.candidates is {spec.patches.candidates}, but {tiles} crops per class are to be chosen.",
            hint=f"Set patches.candidates to at least {tiles}.",
            pointer="/patches/candidates",
        )


def _factors(spec: JobSpec, facts: Facts) -> dict[str, int]:
    """Tiles a side of each kind of patches that the job takes: RDED's own ("rded"), its method's ("patches")."""
    kinds: tuple[Literal["rded", "patches"], ...] = ("rded", "patches")
    taken = {*spec.evaluation.baselines, *(["patches"] if _starts_from_patches(spec, facts) else [])}
    return {kind: spec.patches_of(kind, facts.resolution).factor for kind in kinds if kind in taken}


def _baseline(spec: JobSpec, name: Baseline) -> str:
    """Where a baseline stands."""
    return f"/evaluation/baselines/{spec.evaluation.baselines.index(name)}"


def _starts_from_patches(spec: JobSpec, facts: Facts) -> bool:
    match spec.method:
        case Optimised():
            return spec.method.recipe(facts.resolution).start == "patches"
        case _:
            return not isinstance(spec.method, RandomReal | Herding)


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
    if spec.evaluation.continual is not None and spec.evaluation.continual.student is not None:
        asked.append(("/evaluation/continual/student", spec.evaluation.continual.student))
    for pointer, name in asked:
        reason = NETWORKS[name].misfit(resolution)
        if reason:
            fitting = ", ".join(other for other, network in NETWORKS.items() if not network.misfit(resolution))
            yield SpecInvalid(f"{reason}.", hint=f"Choose one of {fitting}.", pointer=pointer)
    sizes = spec.method.sizes or () if isinstance(spec.method, Optimised) else ()
    for name in dict.fromkeys(teacher.network for teacher in spec.teachers):
        least = NETWORKS[name].smallest_px
        if resolution >= least > min(sizes, default=resolution):
            yield SpecInvalid(
                f"method.sizes begins a stage at {min(sizes)} px, but teacher {name} needs at least {least} px.",
                hint=f"Keep all sizes at {least} px or above, or choose another teacher.",
                pointer="/method/sizes",
            )
