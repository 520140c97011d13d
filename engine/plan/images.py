"""The part of a plan that makes images: the method's, and the baselines'."""

from __future__ import annotations

from math import ceil

from engine.methods import Herding, Optimised, RandomReal, Recipe, TiledPatches
from engine.networks import forward_flop
from engine.params import ObserveParams, RecoverParams, SelectParams
from engine.plan.draft import Draft, Parts
from engine.plan.graph import StepKind

SHARD_FLOP = 5e14  # a recover step's size: some seconds on a large GPU, a quarter of an hour on two CPU cores


def subjects_of(draft: Draft, ipc: int) -> dict[str, Parts]:
    """The sets of images that are judged beside each other: subject -> parts of its images.

    The method's are those of the job's whole ipc, of which a nested ipc takes the first; baselines are chosen anew.
    """
    subjects = {"distilled": distilled(draft)}
    for name in draft.spec.evaluation.baselines:
        images = _chosen(draft, name, ipc)
        is_itself = isinstance(draft.spec.method, RandomReal | Herding) and name == draft.spec.method.method
        if images != subjects["distilled"] and not is_itself:  # a method is not its own baseline
            subjects[name] = images
    return subjects


def distilled(draft: Draft) -> Parts:
    """The method's images."""
    spec = draft.spec
    match spec.method:
        case Optimised():
            return _recover(draft, spec.method.recipe(draft.facts.resolution))
        case RandomReal() | Herding():
            return _chosen(draft, spec.method.method, spec.ipc)
        case _:
            return _chosen(draft, "patches", spec.ipc)


def _chosen(draft: Draft, name: str, ipc: int) -> Parts:
    """Real images: "random", "herding", "rded" (RDED's), "patches" (those that the job's method starts from)."""
    match name:
        case "random":
            return {"images.0": _select(draft, "random", None, ipc, "Choose random images")}
        case "herding":
            return {"images.0": _select(draft, "herding", None, ipc, "Choose images by herding")}
        case _:
            patches = draft.spec.patches_of("rded" if name == "rded" else "patches", draft.facts.resolution)
            tiles = f", {patches.factor} x {patches.factor} an image" if patches.factor != 1 else ""
            title = f"Choose patches ({patches.difficulty}{tiles})"
            return {"images.0": _select(draft, "patches", patches, ipc, title)}


def _select(draft: Draft, choice: str, patches: TiledPatches | None, ipc: int, title: str) -> str:
    spec = draft.spec
    params = SelectParams.model_validate(
        {
            "choice": choice,
            "patches": patches,
            "ipc": ipc,
            "valid_per_class": spec.evaluation.valid_per_class,
            "seed": spec.seed,
            "precision": spec.precision,
        }
    )
    needs = {"data": draft.data}
    seen = 0
    if patches is not None:
        seen = sum(min(count, patches.candidates) for count in draft.facts.train_per_class) * patches.crops
    elif choice == "herding":
        seen = draft.facts.train_images
    if seen:
        needs["teacher.0"] = draft.teachers["teacher.0"]
    flop = draft.forward(spec.teachers[0].network) * seen
    size = draft.images(ipc) * draft.image_bytes
    return draft.add(StepKind.SELECT, title, params, needs, flop=flop, size_bytes=size)


def _recover(draft: Draft, recipe: Recipe) -> Parts:
    """Shards of the optimisation, each some ipc indices of every class."""
    spec = draft.spec
    needs = {"data": draft.data} | draft.teachers | _observed(draft, recipe)
    if recipe.start == "patches":
        needs["patches"] = _chosen(draft, "patches", spec.ipc)["images.0"]
    per_ipc = _recover_flop(draft, recipe)
    width = spec.resources.ipcs_per_step or _even(spec.ipc, max(1, int(SHARD_FLOP / per_ipc)))
    parts = {}
    for index, start in enumerate(range(0, spec.ipc, width)):
        stop = min(start + width, spec.ipc)
        params = RecoverParams(
            recipe=recipe, ipc_start=start, ipc_stop=stop, flip=spec.flip, seed=spec.seed, precision=spec.precision
        )
        title = f"Recover images {start + 1} to {stop} of each class" if width < spec.ipc else "Recover images"
        size = draft.images(stop - start) * draft.image_bytes
        flop = per_ipc * (stop - start)
        parts[f"images.{index}"] = draft.add(StepKind.RECOVER, title, params, needs, flop=flop, size_bytes=size)
    return parts


def _even(count: int, most: int) -> int:
    """The width of parts that are as few as parts of at most `most` are, and as alike as can be."""
    return ceil(count / ceil(count / most))


def _observed(draft: Draft, recipe: Recipe) -> Parts:
    """What recovery needs to know of the real images beyond what batch norm remembers: one step a teacher."""
    spec, pairs = draft.spec, recipe.teachers == "pairs"
    if not (recipe.conv or recipe.class_share or pairs):
        return {}
    params = ObserveParams(conv=recipe.conv, classes=recipe.class_share > 0, crops=pairs, precision=spec.precision)
    observed = {}
    for index, teacher in enumerate(spec.teachers):
        needs = {"data": draft.data, "teacher": draft.teachers[f"teacher.{index}"]}
        flop = draft.forward(teacher.network) * draft.facts.train_images
        title = f"Observe real images in {teacher.network}"
        observed[f"observed.{index}"] = draft.add(StepKind.OBSERVE, title, params, needs, flop=flop)
    return observed


def _recover_flop(draft: Draft, recipe: Recipe) -> float:
    """Operations for one image of each class: the forward pass and the gradient of the input, no weight gradients."""
    networks = [teacher.network for teacher in draft.spec.teachers]
    asked = 2 if recipe.teachers == "pairs" else 1
    passes = asked * (3 if recipe.flatness else 2)  # the moving average is looked at too
    per_image = sum(
        passes * budget * sum(forward_flop(network, size) for network in networks) / len(networks)
        for budget, size in zip(recipe.budgets, recipe.sizes, strict=True)
    )
    return per_image * len(draft.facts.classes)
