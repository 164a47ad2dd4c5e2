"""Keras 2's RMSprop, the tutorial's optimizer, in one pass over the memory."""

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import Field, NonNegativeFloat
from torch.optim.adam import adam

from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import validated


@validated
class RMSprop(torch.optim.Optimizer):
    """v ← α v + (1 - α) g², then w ← w - lr · g / (√v + ε): epsilon is outside the root, as in torch's own RMSprop.

    torch's own reads and writes the memory five times and has no fused kernel. Adam has one, and equals RMSprop if its
    first average keeps nothing (β₁ = 0) and its bias corrections are over (so many steps that 1 - αⁿ = 1).

    Args:
        params: parameters or parameter groups, floating-point, on the CPU or a GPU.
        lr: learning rate.
        alpha: decay of the average, Keras's rho.
        eps: added to the root.

    Raises:
        ArgumentError: a parameter group with weight decay.
    """

    def __init__(
        self,
        params: Any,
        lr: NonNegativeFloat = 1e-3,
        alpha: Annotated[float, Field(ge=0, lt=1)] = 0.9,
        eps: NonNegativeFloat = 1e-7,
    ):
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps))
        for group in self.param_groups:
            if group.get("weight_decay"):
                reason = "RMSprop has no weight decay; expected none, or another optimizer."
                raise ArgumentError("weight_decay", group["weight_decay"], reason)

    @cached_property  # not an attribute of `__init__`, since pickled optimizers lack those
    def _steps(self) -> dict[torch.device, torch.Tensor]:
        """For each device the step count passed to Adam, (): 1e12, so large that float32 + 1 does not change it."""
        return {}

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        steps = self._steps
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients, squares = [], []
            for parameter in learning:
                if parameter.device not in steps:
                    steps[parameter.device] = torch.full((), 1e12, device=parameter.device)
                state = self.state[parameter]
                average = state["square_avg"] if state else torch.zeros_like(parameter)
                state["square_avg"] = _with_strides_of(parameter, average)
                squares.append(state["square_avg"])
                gradients.append(_with_strides_of(parameter, parameter.grad))
            adam(
                learning,
                gradients,
                exp_avgs=gradients,
                exp_avg_sqs=squares,
                max_exp_avg_sqs=[],
                state_steps=[steps[parameter.device] for parameter in learning],
                fused=True,
                amsgrad=False,
                beta1=0.0,
                beta2=group["alpha"],
                lr=group["lr"],
                weight_decay=0.0,
                eps=group["eps"],
                maximize=False,
            )
        return loss


def _with_strides_of(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The fused kernel walks through all tensors in the order of their memory, so their strides must be equal."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)
