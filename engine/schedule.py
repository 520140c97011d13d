"""Learning rates over time: plain numbers, no optimiser."""

import math


def recover_lr(step: int, *, steps: int, lr: float) -> float:
    """Adam's rate at iteration `step` of `steps`: one cosine from `lr` to 0 over the whole budget, not per stage.

    Source: FADRM recover.py, lr_cosine_policy without warm-up.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


def student_lr(epoch: int, *, epochs: int, lr: float, eta: float) -> float:
    """AdamW's rate in an epoch: a cosine stretched by eta, which ends at 0 (eta 1) or at half of `lr` (eta 2).

    Source: arXiv 2506.24125 eq. 57.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs / eta))
