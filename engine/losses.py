"""What recovery and students minimise, in nats. N images, K classes, L batch-norm layers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverLoss:
    """The recovery objective and its two parts, each a scalar."""

    total: Tensor
    ce: Tensor
    bn: Tensor


def recover_loss(logits: Tensor, labels: Tensor, distances: Tensor, *, r_bn: float, first_bn: float) -> RecoverLoss:
    """Cross-entropy plus r_bn times the batch-norm distance, in fp32.

    logits: (N, K). labels: (N,) classes. distances: (L,) of `BatchNormStatistics`.
    Source: arXiv 2506.24125 eq. 52; weights from FADRM recover.py.
    """
    ce = F.cross_entropy(logits.float(), labels)
    bn = weighted_distance(distances, first_bn=first_bn).to(ce.device)
    return RecoverLoss(total=ce + r_bn * bn, ce=ce, bn=bn)


def weighted_distance(distances: Tensor, *, first_bn: float) -> Tensor:
    """Sum of (L,) distances in which the first layer, the closest to the pixels, counts first_bn times."""
    return distances.sum() + (first_bn - 1) * distances[:1].sum()


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
