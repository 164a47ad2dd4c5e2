"""Exponential moving average (EMA) of the weights."""

from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from pydantic import Field
from pytorch_lightning.trainer.states import TrainerFn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import validated

TRAINABLE_PREFIX = "network.trainable."  # of keys in the model's state_dict


@validated
class EMA(pl.Callback):
    """Validates, saves and tests an exponential moving average of the weights in place of the weights.

    The averages begin as the initial weights. Step n of the optimizer, counted from 0, makes them
    d * averages + (1 - d) * weights, where d = min(decay, (1 + n) / (10 + n)), as in TensorFlow: the initial weights
    are soon forgotten. Running statistics of batch norms are averaged too.

    The `state_dict` of checkpoints has the averages; those of the whole training have the weights too, so that a fit
    goes on exactly. After the fit the model has the averages. Lightning's `WeightAveraging` also copies frozen weights,
    and does not save averages in checkpoints of weights alone.

    Args:
        decay: such as 0.999; None averages nothing.
    """

    def __init__(self, decay: Annotated[float, Field(gt=0, lt=1)] | None = None):
        self.decay = decay
        self._forget()

    def _forget(self) -> None:
        self.averages: dict[str, torch.Tensor] = {}  # by key of the model's state_dict; empty outside a fit
        self.weights: dict[str, torch.Tensor] = {}  # those of the optimizer, while the model has the averages
        self.updates = self.step = 0  # the number of updates, and the trainer's step of the last one

    def setup(self, trainer: Any, model: Any, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is restored
            self._forget()

    def on_train_start(self, trainer: Any, model: Any) -> None:
        if self.decay is None:
            return
        self.step, values = trainer.global_step, averaged_values(model)
        if self.averages:  # of a checkpoint
            self.averages = {key: self.averages[key].to(value.device) for key, value in values.items()}
            self._restore(model)
        else:
            self.averages = {key: value.to(average_dtype(value), copy=True) for key, value in values.items()}

    def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.decay is None or trainer.global_step == self.step:  # gradients are accumulated
            return
        update = get_ema_multi_avg_fn(min(self.decay, (1 + self.updates) / (10 + self.updates)))
        values = [value.to(average_dtype(value)) for value in averaged_values(model).values()]
        update(list(self.averages.values()), values, self.updates)
        self.updates, self.step = self.updates + 1, trainer.global_step

    def on_validation_epoch_start(self, trainer: Any, model: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._use_averages(model)

    def on_validation_epoch_end(self, trainer: Any, model: Any) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._restore(model)

    def on_train_end(self, trainer: Any, model: Any) -> None:
        self._use_averages(model)

    def teardown(self, trainer: Any, model: Any, stage: str) -> None:
        self._forget()

    def _use_averages(self, model: Any) -> None:
        if self.averages:
            values = averaged_values(model)
            self.weights = {key: value.clone() for key, value in values.items()}
            for key, value in values.items():
                value.copy_(self.averages[key])

    def _restore(self, model: Any) -> None:
        if self.weights:
            for key, value in averaged_values(model).items():
                value.copy_(self.weights[key])
            self.weights = {}

    def on_save_checkpoint(self, trainer: Any, model: Any, checkpoint: dict) -> None:
        if self.averages:
            weights = self.weights or averaged_values(model)
            state = {"updates": self.updates, "averages": self.averages, "weights": weights}
            checkpoint["callbacks"][self.state_key] = state

    def on_load_checkpoint(self, trainer: Any, model: Any, checkpoint: dict) -> None:
        """Raises ArgumentError if only one of the fit before and this one averages."""
        if trainer.state.fn != TrainerFn.FITTING:  # a test only needs the state_dict
            return
        state = checkpoint["callbacks"].get(self.state_key)
        if (state is None) != (self.decay is None):
            expected = "None, since it has no averages" if state is None else "a number, since it has averages"
            raise ArgumentError("decay", self.decay, f"expected that of the checkpoint's fit: {expected}.")
        if state:
            self.updates, self.averages, self.weights = state["updates"], state["averages"], state["weights"]


def with_averages(trainer: Any, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The model's state_dict with the averages of the trainer's `EMA`, if there are any, in the places of the weights.

    The model calls it, since Lightning does not call callbacks for checkpoints of weights alone.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, EMA) and callback.averages:
            averages = {key: value.to(state_dict[key].dtype) for key, value in callback.averages.items()}
            return state_dict | averages
    return state_dict


def averaged_values(model: Any) -> dict[str, torch.Tensor]:
    """Parameters that learn and running statistics, by key of the model's state_dict, in the model's memory."""
    part = model.network.trainable
    frozen = {name for name, parameter in part.named_parameters() if not parameter.requires_grad}
    return {
        TRAINABLE_PREFIX + name: value
        for name, value in part.state_dict().items()
        if name not in frozen and value.is_floating_point()
    }


def average_dtype(value: torch.Tensor) -> torch.dtype:
    """At least float32: an average of 16 bits would lose small changes."""
    return torch.promote_types(value.dtype, torch.float32)
