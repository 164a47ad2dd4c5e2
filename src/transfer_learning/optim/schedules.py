"""Learning-rate schedules: functions of the fit's progress, the fraction of its steps that are done, in [0, 1].

`GroupSchedule` takes the middle of each step: of 10 steps, the first one has the progress 0.05 and the last one 0.95.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field

from transfer_learning.models.network import ParameterGroup
from transfer_learning.utilities.errors import ArgumentError
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


@validated
class OneCycle:
    """Rises along half a cosine to 1 in `rise`, a fraction of the fit, then falls along half a cosine: one cycle.

    Begins at 1 / `div_factor` and ends at 1 / (`div_factor` * `final_div_factor`). As torch's OneCycleLR without its
    cycle of momentum; its `pct_start` is `rise`. Smith & Topin 2018.
    """

    def __init__(
        self,
        rise: Annotated[float, Field(gt=0, lt=1)] = 0.3,
        div_factor: Annotated[float, Field(ge=1)] = 25.0,
        final_div_factor: Annotated[float, Field(ge=1)] = 1e4,
    ):
        self.rise, self.first = rise, 1 / div_factor
        self.last = self.first / final_div_factor

    def __call__(self, progress: float) -> float:
        if progress < self.rise:
            return _half_cosine(self.first, 1.0, progress / self.rise)
        return _half_cosine(1.0, self.last, (progress - self.rise) / (1 - self.rise))


def _half_cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * 0.5 * (1 + math.cos(math.pi * share))


def optimizer_groups(groups: Sequence[ParameterGroup]) -> list[dict]:
    """Parameter groups as torch's optimizers take them."""
    decays = [{} if group.weight_decay is None else {"weight_decay": group.weight_decay} for group in groups]
    return [{"params": list(group.parameters), **decay} for group, decay in zip(groups, decays)]


def endless_error() -> ArgumentError:
    """The error about a schedule in a fit without an end."""
    return ArgumentError("max_epochs", -1, "a learning-rate schedule needs to know the end of the fit.")


def never_learns_error(group: ParameterGroup) -> ArgumentError:
    """The error about a group whose first epoch is after the end of the fit."""
    reason = f"the fit is not longer than that, so the {group.name} would never learn."
    return ArgumentError("unfreeze_at_epoch", group.from_epoch, reason)


class GroupSchedule(torch.optim.lr_scheduler.LambdaLR):
    """At each step, a group's learning rate is the optimizer's times the schedule's factor times the group's scale.

    It is 0 before the group's first epoch. A fit that is resumed with another length has the rates of that length.

    Args:
        groups: the optimizer's, in its order.
        schedule: None is constant.
        steps, steps_per_epoch: of the whole fit and of an epoch; `inf` steps if the end is not known.

    Raises:
        ArgumentError: a schedule without an end, or a group whose first epoch is after it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: Sequence[ParameterGroup],
        schedule: Schedule | None,
        steps: float,
        steps_per_epoch: int,
    ):
        if schedule and math.isinf(steps):
            raise endless_error()
        for group in groups:
            if group.from_epoch and group.from_epoch * steps_per_epoch >= steps:
                raise never_learns_error(group)
        super().__init__(optimizer, [_group_factor(group, schedule, steps, steps_per_epoch) for group in groups])

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        for group, rate, factor in zip(self.optimizer.param_groups, self.base_lrs, self.lr_lambdas):
            group["lr"] = rate * factor(self.last_epoch)  # a checkpoint has that of the length before


def _group_factor(group: ParameterGroup, schedule: Schedule | None, steps: float, steps_per_epoch: int) -> Callable:
    """step -> factor of the group's learning rate."""

    def factor(step: int) -> float:
        progress = min((step + 0.5) / steps, 1.0)  # after the last step torch asks for one more
        scheduled = schedule(progress) if schedule else 1.0
        return scheduled * group.lr_scale if step >= group.from_epoch * steps_per_epoch else 0.0

    return factor
