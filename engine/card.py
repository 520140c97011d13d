"""card.md of a download: what it is, how well it does, and what to mind. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

from engine.methods import TITLES, Herding, Optimised, RandomReal
from engine.networks import SMALL_BELOW_PX, network_title
from engine.scores import SUBJECT_TITLES, Robustness, Score, robustness, signed, table, verdicts
from engine.spec import JobSpec

BATCH_CAVEAT = """Their batch norm used the statistics of each half batch (BSSL; the first n // 2 of a batch's n positions, or the rest),
so a label is valid only together with the other images of its half batch: leave out or shuffle whole half batches, never
single labels."""

PAPERS = {
    "fadrm": "2506.24125",
    "fadrm+": "2506.24125",
    "sre2l++": "2501.07575",
    "sre2l": "2306.13092",
    "cda": "2311.18838",
    "g-vbsm": "2311.17950",
    "cv-dd": "2501.07575",
    "edc": "2404.13733",
    "rded": "2312.03526",
}
QUICK = """**A quick look: one run, hard labels, a tenth of the epochs.** These figures are comparable with nothing, neither with
papers nor with other cards."""


def card(facts: dict[str, Any], spec: JobSpec, scores: Sequence[Score]) -> str:
    """The card as Markdown. facts: what manifest.json says."""
    return "\n\n".join(_parts(facts, spec, scores)) + "\n"


def _parts(facts: dict[str, Any], spec: JobSpec, scores: Sequence[Score]) -> Iterator[str]:
    count = len(facts["images"])
    yield f"# {facts['name']}"
    yield (
        f"{count} images of {facts['resolution']} px, {facts['images_per_class']} for each of {len(facts['classes'])} "
        f"classes, made from {facts['title']} by {_method(spec)}. Seed {facts['seed']}.{_nested(facts, spec)}"
    )
    yield from _score_card(spec, scores)
    yield from _upper_bound(facts["full_data"])
    yield from _robustness(robustness(scores, {one["student"]: one["top1_pct"] for one in facts["full_data"]}))
    yield from _continual(facts["continual"])
    yield "## Teachers\n\n" + "\n".join(
        f"- {teacher['network']}: {teacher['top1_pct']:.1f} % on the real test set, "
        + (f"after {teacher['epochs']} epochs" if teacher["epochs"] else "trained elsewhere")
        for teacher in facts["teachers"]
    )
    yield _use(facts, has_scores=bool(scores))
    yield _labels(facts["labels"], len(facts["classes"]))
    yield _files(facts)


def _method(spec: JobSpec) -> str:
    name = spec.method.method
    paper = f"arXiv {PAPERS[name]}; " if name in PAPERS else ""
    match spec.method:
        case Optimised():
            budgets = spec.method.budgets
            stages = f"{len(budgets)} stage{'s' if len(budgets) > 1 else ''}"
            return f"{TITLES[name]} ({paper}{sum(budgets)} iterations in {stages})"
        case RandomReal():
            return "taking real images at random"
        case Herding():
            return "choosing real images by herding"
        case _:
            return f"choosing crops of real images (RDED; {paper}difficulty {spec.patches.difficulty})"


def _score_card(spec: JobSpec, scores: Sequence[Score]) -> Iterator[str]:
    if not scores:
        yield "## Score card\n\nThe job named no student: there are no accuracies."
        return
    yield "## Score card\n\nTop-1 accuracy on the real test set of students trained from scratch on the images alone."
    if spec.evaluation.quick:
        yield QUICK
    yield table(scores)
    yield from _reading(scores)


def _nested(facts: dict[str, Any], spec: JobSpec) -> str:
    if facts["images_per_class"] == spec.ipc:
        return ""
    return f" They are the first of each class of a set of {spec.ipc} per class; labels and figures are their own."


def _upper_bound(full: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What students reach on all real images."""
    if full:
        yield "Trained on all real images instead, the upper bound:\n\n" + "\n".join(
            f"- {network_title(one['student'])}: {one['top1_pct']:.1f} %" for one in full
        )


def _robustness(found: Sequence[Robustness]) -> Iterator[str]:
    """DD-Ranking's scores, where all their parts were measured."""
    lines = [
        f"- {network_title(one.student)}: HLR {one.hlr:.3f}, IOR {signed(one.ior, 3)}, LRS {one.lrs:.3f}"
        for one in found
        if one.hlr is not None and one.ior is not None and one.lrs is not None
    ]
    if lines:
        yield (
            "DD-Ranking's scores, as fractions of 1: hard label recovery (how far hard labels stay behind all real images, "
            "low is good), improvement over random images, label robust score (high is good):\n\n" + "\n".join(lines)
        )


def _continual(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Class-incremental learning: a table for each number of groups, a line for each set of images."""
    if rows:
        yield (
            "## Classes in groups\n\nTop-1 accuracy, %, on the test images of the classes so far, of a student that is "
            "trained anew on the images of these classes whenever a group has come; mean over the runs."
        )
    for steps, student in dict.fromkeys((row["steps"], row["student"]) for row in rows):
        own = [row for row in rows if (row["steps"], row["student"]) == (steps, student)]
        seen = [int(classes) for classes, _ in own[0]["runs"][0]["curve"]]
        lines = [["Images", *(f"{count} classes" for count in seen)], ["---"] * (len(seen) + 1)]
        for row in own:
            groups = zip(*([top1 for _, top1 in run["curve"]] for run in row["runs"]), strict=True)
            title = SUBJECT_TITLES.get(row["subject"], row["subject"])
            lines.append([title, *(f"{fmean(group):.1f}" for group in groups)])
        table_of = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        yield f"{network_title(student)}, {steps} groups:\n\n{table_of}"


def _reading(scores: Sequence[Score]) -> Iterator[str]:
    """What the figures say, and what they do not."""
    if any(score.std is not None for score in scores):
        yield (
            "Mean \u00b1 sample standard deviation over the runs. They differ in the student's first weights alone: how much the "
            "images would vary with the job's seed is not in it."
        )
    chosen = " Chosen epoch is the best one on real training images that no image was made from, though teachers trained on them."
    yield (
        f"Last epoch is not chosen by anything.{chosen if any(score.chosen for score in scores) else ''} Best on test is the "
        "best test of each run, chosen on the test set as papers report it, and therefore a little too good."
    )
    found = verdicts(scores)
    if found:
        yield "\n".join(f"- {sentence}" for sentence in found)


def _use(facts: dict[str, Any], *, has_scores: bool) -> str:
    mean, std = (", ".join(f"{value:.4f}" for value in facts["normalisation"][name]) for name in ("mean", "std"))
    needs = "torch alone" if facts["resolution"] < SMALL_BELOW_PX else "torch and torchvision, whose networks it trains"
    test = " The test images are too large to be in here: name a folder of classes with `--test FOLDER`."
    missing = "" if facts["has_test"] else test
    again = "trains the first student of this card again and prints its accuracies beside those above"
    anew = (
        f"trains {network_title(facts['training']['student'])}, the first teacher's network, and prints its accuracies"
    )
    return f"""## Use

`python train.py` {again if has_scores else anew}; `--student NAME` trains another network. It needs {needs}.{missing}

The images are plain 8-bit RGB files in folders of classes, as `torchvision.datasets.ImageFolder` reads them.
Divide by 255, then normalise with mean ({mean}) and standard deviation ({std})."""


def _labels(labels: dict[str, Any], classes: int) -> str:
    caveat = BATCH_CAVEAT if labels["statistics"] == "batch" else "Their batch norm used its running statistics."
    return f"""## Soft labels

{_storage(labels, classes)}

Position p of epoch e shows image `order[e, p]` (of `images` in manifest.json), cut out at
`boxes[e, p]` (top, left, height, width; resized to the full side, bilinear with antialias), mirrored where `flips[e, p]`.
In its batch b, the rectangle `mix_boxes[e, b]` (top, left, bottom, right) comes from the image at position
`partners[e, p]` of the same batch. A label is of what results. A last image that would be
alone in its batch belongs to the batch before.

{caveat}"""


def _storage(labels: dict[str, Any], classes: int) -> str:
    """How labels are kept, and what that leaves out: nothing where as much is asked for as there is."""
    epochs = f"{labels['epochs']} epochs of batches of {labels['batch_size']}"
    if labels["recipe_only"]:
        return (
            f"No label is stored: `train.py` makes the teachers' mean logits for {epochs} again, from `teachers/`. "
            "On another kind of device they differ in their last bits."
        )
    kept = [f"`labels/` holds the teachers' mean logits (fp16) for {epochs}, as arrays that can be memory-mapped."]
    if (labels["pool"] or labels["epochs"]) < labels["epochs"]:
        kept.append(f"Only {labels['pool']} epochs are stored; their batches, whole, serve the others again.")
    if (labels["top_k"] or classes) < classes:
        kept.append(
            f"Of each label the {labels['top_k']} largest logits are stored; the rest share what is left evenly."
        )
    return " ".join(kept)


def _files(facts: dict[str, Any]) -> str:
    test = "- `test/`: the real test images\n" if facts["has_test"] else ""
    teachers = "- `teachers/<index>.safetensors`: the networks above\n" if facts["labels"]["recipe_only"] else ""
    return f"""## Files

- `images/<class index>_<class name>/<ipc>.png`
- `labels/*.npy`: the soft labels
{teachers}{test}- `manifest.json`: classes, normalisation, spec, seed, versions, teachers, checksums, and the sources of each image: the
  training file (or its index in the data set), and the crop in pixels of that file's {facts["resolution"]} px square
- `train.py`, `engine/`: the training code of the server that made this, word for word
- `SHA256SUMS`: for `sha256sum -c`"""
