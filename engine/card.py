"""card.md of a download: what it is, how well it does, and what to mind. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.methods import TITLES, Fadrm, FadrmPlus, Herding, Optimised, RandomReal
from engine.networks import SMALL_BELOW_PX
from engine.scores import Score, table, verdicts
from engine.spec import JobSpec

BATCH_CAVEAT = """Their batch norm used the statistics of each half batch (BSSL; the first n // 2 of a batch's n positions, or the rest),
so a label is valid only together with the other images of its half batch: leave out or shuffle whole half batches, never
single labels."""


def card(facts: dict[str, Any], spec: JobSpec, scores: Sequence[Score]) -> str:
    """The card as Markdown. facts: what manifest.json says."""
    return "\n\n".join(_parts(facts, spec, scores)) + "\n"


def _parts(facts: dict[str, Any], spec: JobSpec, scores: Sequence[Score]) -> Iterator[str]:
    count = len(facts["images"])
    yield f"# {facts['name']}"
    yield (
        f"{count} images of {facts['resolution']} px, {facts['images_per_class']} for each of {len(facts['classes'])} "
        f"classes, made from {facts['title']} by {_method(spec)}. Seed {facts['seed']}."
    )
    yield "## Score card\n\nTop-1 accuracy on the real test set of students trained from scratch on the images alone."
    yield table(scores) if scores else "No student was trained."
    yield from _reading(scores)
    yield "## Teachers\n\n" + "\n".join(
        f"- {teacher['network']}: {teacher['top1_pct']:.1f} % on the real test set, "
        + (f"after {teacher['epochs']} epochs" if teacher["epochs"] else "trained elsewhere")
        for teacher in facts["teachers"]
    )
    yield _use(facts)
    yield _labels(facts["labels"])
    yield _files(facts)


def _method(spec: JobSpec) -> str:
    match spec.method:
        case Optimised():
            own = "arXiv 2506.24125; " if isinstance(spec.method, Fadrm | FadrmPlus) else ""
            budgets, name = spec.method.budgets, TITLES[spec.method.method]
            return f"{name} ({own}{sum(budgets)} iterations in {len(budgets)} stage{'s' if len(budgets) > 1 else ''})"
        case RandomReal():
            return "taking real images at random"
        case Herding():
            return "choosing real images by herding"
        case _:
            return f"choosing crops of real images (RDED; difficulty {spec.patches.difficulty})"


def _reading(scores: Sequence[Score]) -> Iterator[str]:
    """What the figures say, and what they do not."""
    if any(score.std is not None for score in scores):
        yield (
            "Mean \u00b1 sample standard deviation over the runs. They differ in the student's first weights alone: how much the "
            "images would vary with the job's seed is not in it."
        )
    yield (
        "Last epoch is not chosen by anything. Best epoch is the best test of each run, chosen on the test set as papers "
        "report it, and therefore a little too good."
    )
    found = verdicts(scores)
    if found:
        yield "\n".join(f"- {sentence}" for sentence in found)


def _use(facts: dict[str, Any]) -> str:
    mean, std = (", ".join(f"{value:.4f}" for value in facts["normalisation"][name]) for name in ("mean", "std"))
    needs = "torch alone" if facts["resolution"] < SMALL_BELOW_PX else "torch and torchvision, whose networks it trains"
    test = " The test images are too large to be in here: name a folder of classes with `--test FOLDER`."
    missing = "" if facts["has_test"] else test
    return f"""## Use

`python train.py` trains the students of this card again and prints their accuracies beside it. It needs {needs}.{missing}

The images are plain 8-bit RGB files in folders of classes, as `torchvision.datasets.ImageFolder` reads them.
Divide by 255, then normalise with mean ({mean}) and standard deviation ({std})."""


def _labels(labels: dict[str, Any]) -> str:
    caveat = BATCH_CAVEAT if labels["statistics"] == "batch" else "Their batch norm used its running statistics."
    return f"""## Soft labels

`labels/` holds the teachers' mean logits (fp16) for {labels["epochs"]} epochs of batches of {labels["batch_size"]}, as arrays
that can be memory-mapped. Position p of epoch e shows image `order[e, p]` (of `images` in manifest.json), cut out at
`boxes[e, p]` (top, left, height, width; resized to the full side, bilinear with antialias), mirrored where `flips[e, p]`.
In its batch b, the rectangle `mix_boxes[e, b]` (top, left, bottom, right) comes from the image at position
`partners[e, p]` of the same batch. `logits[e, p]` is the label of what results. A last image that would be
alone in its batch belongs to the batch before.

{caveat}"""


def _files(facts: dict[str, Any]) -> str:
    test = "- `test/`: the real test images\n" if facts["has_test"] else ""
    return f"""## Files

- `images/<class index>_<class name>/<ipc>.png`
- `labels/*.npy`: the soft labels
{test}- `manifest.json`: classes, normalisation, spec, seed, versions, teachers, checksums, and the sources of each image: the
  training file (or its index in the data set), and the crop in pixels of that file's {facts["resolution"]} px square
- `train.py`, `engine/`: the training code of the server that made this, word for word
- `SHA256SUMS`: for `sha256sum -c`"""
