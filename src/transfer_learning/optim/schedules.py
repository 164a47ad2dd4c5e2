"""Learning-rate schedules: functions of the fit's progress, the fraction of its steps that are done, in [0, 1]."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from transfer_learning.models.network import ParameterGroup
from transfer_learning.utilities.validation import validated

Schedule = Callable[[float], float]  # progress -> factor of the learning rate


@validated
class Cosine:
    """Rises linearly from 0 to 1 in `warmup`, a fraction of the fit, then falls to 0 along half a cosine.

    Loshchilov & Hutter 2017, without restarts.
    """

    def __init__(self, warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05):
        self.warmup = warmup

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))


def optimizer_groups(groups: Sequence[ParameterGroup]) -> list[dict]:
    """Parameter groups as torch's optimizers take them."""
    decays = [{} if group.weight_decay is None else {"weight_decay": group.weight_decay} for group in groups]
    return [{"params": list(group.parameters), **decay} for group, decay in zip(groups, decays)]


def group_factor(group: ParameterGroup, schedule: Schedule | None, steps: float, steps_per_epoch: int) -> Callable:
    """step -> factor of the group's learning rate: the schedule (None is constant) times the group's scale.

    It is 0 before the group's first epoch. `steps` is the length of the whole fit.
    """

    def factor(step: int) -> float:
        scheduled = schedule((step + 0.5) / steps) if schedule else 1.0
        return scheduled * group.lr_scale if step >= group.from_epoch * steps_per_epoch else 0.0

    return factor
