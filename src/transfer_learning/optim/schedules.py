"""Learning-rate schedules: functions of the fit's progress, the fraction of its steps that are done, in [0, 1]."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch.optim.lr_scheduler import LambdaLR

from transfer_learning.models.network import ParameterGroup
from transfer_learning.utilities.validation import validated

Schedule = Callable[[float], float]  # progress -> factor of the learning rate


@validated
class Cosine:
    """Rises linearly from 0 to 1, then falls to 0 along half a cosine (Loshchilov & Hutter 2017).

    Args:
        warmup: the fraction of the fit in which the factor rises.
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
    return [{"params": list(group.parameters)} | decay for group, decay in zip(groups, decays)]


def lr_scheduler(
    optimizer: torch.optim.Optimizer,
    groups: Sequence[ParameterGroup],
    schedule: Schedule | None,
    steps: float,
    steps_per_epoch: int,
) -> LambdaLR:
    """Multiplies each group's learning rate by the schedule and the group's scale; 0 before the group's first epoch.

    Args:
        groups: those of the optimizer, in the same order.
        schedule: None is constant.
        steps: of the whole fit.
    """

    def factor(group: ParameterGroup) -> Callable[[int], float]:
        first_step = group.from_epoch * steps_per_epoch

        def at(step: int) -> float:
            scheduled = schedule((step + 0.5) / steps) if schedule else 1.0
            return scheduled * group.lr_scale if step >= first_step else 0.0

        return at

    return LambdaLR(optimizer, [factor(group) for group in groups])
