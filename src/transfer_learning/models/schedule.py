"""Learning-rate schedules: functions of progress, the share of the fit's steps that are done, in [0, 1]."""

import math

from transfer_learning.errors import UserError


def cosine(progress: float, warmup: float = 0.05) -> float:
    """Rises linearly from 0 to 1 during `warmup`, a share of the fit, then falls to 0 along half a cosine (Loshchilov & Hutter 2017)."""
    if not 0 <= warmup < 1:
        raise UserError(f"scheduler.warmup={warmup}: expected at least 0 and less than 1.")
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
