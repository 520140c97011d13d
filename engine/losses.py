"""What recovery and students minimise, in nats. G blocks, N images of them all, K classes, L batch-norm layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FLATNESS_TEMPERATURE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverLoss:
    """The recovery objective and its two parts, (G,) each."""

    total: Tensor
    ce: Tensor
    bn: Tensor


def recover_loss(logits: Tensor, labels: Tensor, distance: Tensor, *, r_bn: float) -> RecoverLoss:
    """Cross-entropy plus r_bn times the distance of statistics, in fp32.

    logits: (N, K), block after block. labels: (N,) classes. distance: (G,) of all layers together: see `weighted_distance`.
    Source: arXiv 2506.24125 eq. 52; weights from FADRM recover.py.
    """
    ce = F.cross_entropy(logits.float(), labels, reduction="none").view(len(distance), -1).mean(1)
    return RecoverLoss(total=ce + r_bn * distance, ce=ce, bn=distance)


def committee_loss(losses: Sequence[RecoverLoss], weights: Sequence[float]) -> RecoverLoss:
    """What several teachers say together: the weighted sum of each part."""
    total, ce, bn = (
        torch.stack([weight * getattr(loss, part) for loss, weight in zip(losses, weights, strict=True)]).sum(0)
        for part in ("total", "ce", "bn")
    )
    return RecoverLoss(total=total, ce=ce, bn=bn)


def flatness_penalties(logits: Tensor, average: Tensor, *, blocks: int) -> Tensor:
    """How far a teacher's answers to images are from those to their moving average: both (N, K) logits -> (G,) nats.

    Kullback-Leibler divergence at temperature 4, mean over a block's images and the classes, the average's answers as the
    target; no gradient flows to them. It is 0 where both are the same. Source: EDC (arXiv 2404.13733) recover.py,
    loss_ema_ce.
    """
    pairs = zip(logits.chunk(blocks), average.detach().chunk(blocks), strict=True)
    distances = [distillation_loss(own, mean, temperature=FLATNESS_TEMPERATURE) for own, mean in pairs]
    return torch.stack(distances) / logits.shape[1]


def weighted_distance(distances: Tensor, *, first_bn: float) -> Tensor:
    """(G,): sums of (G, L) distances in which the first layer, the closest to the pixels, counts first_bn times."""
    return distances.sum(1) + (first_bn - 1) * distances[:, :1].sum(1)


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened softmaxes, mean over the images, without the usual factor T^2.

    student, teacher: (N, K) logits. Returns a scalar >= 0. Source: FADRM train_fkd.py.
    """
    log_student = F.log_softmax(student.float() / temperature, 1)
    return F.kl_div(log_student, F.softmax(teacher.float() / temperature, 1), reduction="batchmean")


def mixed_cross_entropy(logits: Tensor, labels: Tensor, partners: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy against two true classes, weighted by the area that each has in a CutMix image.

    logits: (N, K). labels, partners: (N,) classes of an image and of the one pasted in. shares: (N,) area of the pasted
    part, 0..1. Returns a scalar.
    """
    own = F.cross_entropy(logits.float(), labels, reduction="none")
    pasted = F.cross_entropy(logits.float(), partners, reduction="none")
    return torch.lerp(own, pasted, shares.to(own)).mean()
