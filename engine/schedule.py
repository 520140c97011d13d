"""What changes over the iterations: learning rates, resolutions. Plain numbers; torch-free."""

import math

from engine.networks import SMALL_BELOW_PX

LOW_RESOLUTION = 200 / 224  # eq. 8: the share at which large images spend every other stage


def cosine_lr(step: int, *, steps: int, lr: float) -> float:
    """The rate at step `step` of `steps`: one cosine from `lr` to 0. Of recovery over its whole budget, not per stage.

    Source: FADRM recover.py, lr_cosine_policy without warm-up. Teachers use it too.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * step / steps))


def student_lr(epoch: int, *, epochs: int, lr: float, eta: float) -> float:
    """AdamW's rate in an epoch: a cosine stretched by eta, which ends at 0 (eta 1) or at half of `lr` (eta 2).

    Source: arXiv 2506.24125 eq. 57.
    """
    return lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs / eta))


def stage_sizes(resolution: int, stages: int) -> tuple[int, ...]:
    """Resolution of each stage, px: 200 and 224 in turn at 224, ending at full size; small images keep their own.

    No stage of large images is so small that networks would take their form for small ones.
    Source: arXiv 2506.24125 eq. 5 and 6; FADRM scripts.
    """
    large = resolution >= SMALL_BELOW_PX
    low = max(round(resolution * LOW_RESOLUTION), SMALL_BELOW_PX) if large else resolution
    return tuple(resolution if (stages - stage) % 2 else low for stage in range(stages))


def default_jitter(resolution: int) -> int:
    """The largest roll, px, that FADRM's recover.py fixes for images of this side."""
    return 4 if resolution <= 64 else 32
