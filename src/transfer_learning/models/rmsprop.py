"""Keras 2's RMSprop, the tutorial's optimiser, in one pass over the memory."""

from collections.abc import Callable

import torch
from torch.optim.adam import adam


class RMSprop(torch.optim.Optimizer):
    """v ← α v + (1 − α) g², then w ← w − lr · g / (√v + ε): epsilon is outside the root, in Keras 2 as in torch's own `RMSprop`.

    torch's own makes five passes over weights and gradients, and has no fused kernel. Adam has one, and is RMSprop where its first average
    forgets at once (β₁ = 0: it is the gradient) and its bias corrections are over (so many steps that 1 − αⁿ = 1).

    Args:
        params: parameters, or groups of them, floating-point, on the CPU or a GPU.
        lr: learning rate, at least 0.
        alpha: share of the average that stays, Keras's rho, in [0, 1).
        eps: added to the root, at least 0.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, params, lr: float = 1e-3, alpha: float = 0.9, eps: float = 1e-7):
        for name, value, valid in (("lr", lr, lr >= 0), ("alpha", alpha, 0 <= alpha < 1), ("eps", eps, eps >= 0)):
            if not valid:
                raise ValueError(f"Invalid {name}: {value}")
        super().__init__(params, dict(lr=lr, alpha=alpha, eps=eps))

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            learning = [parameter for parameter in group["params"] if parameter.grad is not None]
            gradients, squares = [], []
            for parameter in learning:
                state = self.state[parameter]
                state["square_avg"] = _laid_out_as(
                    parameter, state["square_avg"] if state else torch.zeros_like(parameter)
                )
                squares.append(state["square_avg"])
                gradients.append(_laid_out_as(parameter, parameter.grad))
            adam(
                learning,
                gradients,
                exp_avgs=gradients,
                exp_avg_sqs=squares,
                max_exp_avg_sqs=[],
                state_steps=[torch.full((), 1e12, device=parameter.device) for parameter in learning],
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


def _laid_out_as(parameter: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The kernel walks through the memory of all three alike, and does not look whether they lie alike, as a backward pass sees to."""
    return tensor if tensor.stride() == parameter.stride() else torch.empty_like(parameter).copy_(tensor)
