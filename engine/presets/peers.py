"""The family that the paper compares with, at one scale on CIFAR-10: same network, same images, same students.

Budgets are a fifth of each paper's, like those of the preset `cifar10-small`.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.methods import (
    AS_RDED,
    TITLES,
    Cda,
    CvDd,
    Edc,
    FadrmPlus,
    Gvbsm,
    Herding,
    Method,
    Patches,
    RandomReal,
    Rded,
    Sre2l,
    Sre2lPlusPlus,
)
from engine.presets.preset import Preset
from engine.presets.small import CIFAR10_SMALL

ITERATIONS = 800  # a fifth of the 4,000 of SRe2L and most that came of it
COST = "Minutes on a GPU, hours on two CPU cores. CIFAR-10 is fetched on first use."


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A method, and what its paper leaves open or this one does else."""

    word: str  # in the preset's name
    method: Method
    says: str
    several: bool = False  # teachers


PEERS_BY_PAPER = (
    Peer(
        word="fadrm-plus",
        method=FadrmPlus(budgets=(100, 100, 100, 100)),
        says="FADRM+ (arXiv 2506.24125) with two teachers in turn, instead of the paper's four",
        several=True,
    ),
    Peer(
        word="sre2l-plus-plus",
        method=Sre2lPlusPlus(budgets=(ITERATIONS,)),
        says="SRe2L++ (arXiv 2501.07575, 2506.24125): no paper gives its patches, taken here from the middle of the ranking",
    ),
    Peer(
        word="sre2l",
        method=Sre2l(budgets=(ITERATIONS,)),
        says="SRe2L (arXiv 2306.13092) from noise; its students are trained as all others here, not as in its paper",
    ),
    Peer(
        word="cda",
        method=Cda(budgets=(ITERATIONS,)),
        says="CDA (arXiv 2311.18838): of its three curricula the cosine, as in the authors' code",
    ),
    Peer(
        word="g-vbsm",
        method=Gvbsm(budgets=(ITERATIONS,)),
        says="G-VBSM (arXiv 2311.17950) with two networks and its code's learning rate, 0.05; left out are densification, "
        "patch-wise statistics and moving averages, and labels are the mean logits",
        several=True,
    ),
    Peer(
        word="cv-dd",
        method=CvDd(budgets=(ITERATIONS,)),
        says="CV-DD (arXiv 2501.07575) with two networks instead of five; their prior performance is how many random crops "
        "of real images each recognises, where the paper distils a set with each",
        several=True,
    ),
    Peer(
        word="edc",
        method=Edc(budgets=(ITERATIONS // 2,)),
        says="EDC (arXiv 2404.13733) from the easiest crops, with two networks instead of eight; left out are patch-wise "
        "statistics and its own schedule of students",
        several=True,
    ),
    Peer(
        word="rded",
        method=Rded(),
        says="RDED (arXiv 2312.03526): the easiest crops, one an image, as its authors do at 32 px, labelled by batch statistics",
    ),
    Peer(
        word="herding",
        method=Herding(),
        says="Herding (Welling, ICML 2009): which features to follow is left open, here those before the teacher's head",
    ),
    Peer(word="random", method=RandomReal(), says="Random real images: what every method should beat"),
)


def _preset(peer: Peer) -> Preset:
    method = peer.method.method
    first = CIFAR10_SMALL.teachers[0]
    second = first.model_copy(update={"network": "resnet18_w16"})
    changes: dict[str, object] = {"method": peer.method}
    if peer.several:
        changes["teachers"] = (first, second)
    if method in AS_RDED:
        changes["patches"] = Patches(difficulty="easy")
    return Preset(
        name=f"cifar10-small-{peer.word}",
        group="CIFAR-10",
        title=f"CIFAR-10, 10 per class, small network, {TITLES[method]}",
        note=f"{peer.says}. {COST}",
        spec=CIFAR10_SMALL.model_copy(update=changes),
    )


PEERS = tuple(map(_preset, PEERS_BY_PAPER))
