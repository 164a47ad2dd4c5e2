"""Notices losses that are not finite, without waiting for the device at each step."""

import math
from typing import Any

import torch

from transfer_learning.utilities.errors import UserError


class FiniteLosses:
    """The losses of one epoch, in one process.

    The tensors stay on the device. They are no buffers of a module: DDP gives all processes those of the first one.
    """

    def __init__(self, device: torch.device):
        self.all_finite = torch.ones((), dtype=torch.bool, device=device)
        self.steps = torch.zeros((), dtype=torch.int64, device=device)  # training batches before the first that was not

    def add(self, loss: torch.Tensor, training: bool) -> None:
        """`loss` is (), float."""
        self.all_finite &= loss.abs() < math.inf  # torch.isfinite is twice as many operations
        if training:
            self.steps += self.all_finite

    def first_not_finite(self, strategy: Any) -> int | None:
        """The training batch of the first loss that was not finite in any process, or their number after validation.

        None if all were finite. All processes of Lightning's strategy call it together and get the same.
        """
        found = torch.stack([self.all_finite.long(), self.steps])
        all_finite, steps = strategy.reduce(found, reduce_op="min").tolist()
        return None if all_finite else steps

    def check(self, trainer: Any) -> None:
        """Raises UserError, in all processes, if the loss of a batch of the trainer's current epoch was not finite."""
        batch, epoch = self.first_not_finite(trainer.strategy), trainer.current_epoch
        if batch is None:
            return
        step = batch // trainer.accumulate_grad_batches + 1
        where = f"step {step}" if batch <= trainer.fit_loop.batch_idx else "in validation"  # not one to come
        way = "try a lower learning rate" if epoch or batch else "look at the weights and the images"
        kept = f"The checkpoints of earlier epochs are kept; {way}."
        raise UserError(f"epoch {epoch + 1}, {where}: the loss is not finite. {kept}")
