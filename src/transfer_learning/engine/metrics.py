"""The metrics of each split, and the one that is monitored."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from transfer_learning.callbacks.run_end import monitoring_checkpoint
from transfer_learning.reporting.metric_names import default_mode, is_worst
from transfer_learning.utilities.errors import ArgumentError, UserError, first_line

MetricFactory = Callable[..., Metric]  # called with num_classes; the metric takes probabilities (N, C) and codes (N,)


class Monitor(NamedTuple):
    """The metric that says which epoch is the best: its key, such as `val/acc`, and "min" or "max"."""

    name: str
    mode: str

    @classmethod
    def of(cls, trainer: pl.Trainer, name: str | None = None) -> "Monitor":
        """That of the trainer's first ModelCheckpoint that monitors something; without one, `name` or `val/acc`."""
        if callback := monitoring_checkpoint(trainer):
            return cls(callback.monitor, callback.mode)
        return cls(name or "val/acc", default_mode(name or "val/acc"))

    def check(self, logged: Sequence[str], trainer: Any, chosen: str | None = None) -> None:
        """Raises ArgumentError if this monitor, or that of another callback, is not among the logged metrics.

        Also for a training metric if the callback would act before it is known, at the end of a validation.
        A callback whose mode selects the worst value of its metric is an error if the user has `chosen` a monitor,
        unless it monitors that; else it is logged.
        """
        monitoring = [callback for callback in trainer.callbacks if getattr(callback, "monitor", None)]
        for callback in monitoring:
            name, expected = callback.monitor, default_mode(callback.monitor)
            flags = ("_save_on_train_epoch_end", "_check_on_train_epoch_end")  # of ModelCheckpoint, of EarlyStopping
            acts_after_epoch = any(getattr(callback, flag, None) for flag in flags)
            one_validation = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
            if name.startswith("train/") and not acts_after_epoch and not one_validation:
                reason = "the training's metrics are those of the epoch before then. Monitor one of the validation"
                raise ArgumentError("monitor", name, f"without one validation for each epoch, {reason}.")
            mode = getattr(callback, "mode", expected)
            if name == chosen or not is_worst(name, mode):
                continue
            better = f"{name} is better the {'lower' if expected == 'min' else 'higher'} it is"
            if chosen:
                raise ArgumentError("mode", mode, f"{better}; expected {expected}.")
            rank_zero_info(f"{type(callback).__name__}(mode='{mode}') takes the worst epoch for the best: {better}")
        for name in [self.name, *(callback.monitor for callback in monitoring)]:
            if name not in logged:
                raise ArgumentError("monitor", name, f"no such metric; expected one of {', '.join(logged)}.")


class Metrics(nn.ModuleDict):
    """Loss, accuracy and further metrics of each split, by key, accumulated over batches and devices.

    `further` maps names to metrics of torchmetrics, which are called with `num_classes`.
    """

    def __init__(self, further: Mapping[str, MetricFactory], num_classes: int):
        super().__init__()
        for name in further:
            if name in ("acc", "loss") or "." in name:
                raise UserError(f"metric {name}: expected a name without dots, and not acc or loss.")
        self.further, self.num_classes = list(further), num_classes
        for split in ("train", "val", "test"):
            # Means over images. "disable" lets a loss that is not finite show, and does not wait for the device at each
            # step. torchmetrics ignores `weight` then, so each image is a value of its own.
            self[f"{split}/loss"], self[f"{split}/acc"] = MeanMetric("disable"), MeanMetric("disable")
            self.update({f"{split}/{name}": metric(num_classes=num_classes) for name, metric in further.items()})

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Metrics":
        """As of every module, but sums keep their bits: in 16 bits (`bf16-true`) they stop growing after some batches.

        torchmetrics ignores `.half()` and `.bfloat16()` for this reason, but not `.to(dtype)`, which Lightning uses.
        """

        def keep_bits(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            return converted if converted.element_size() >= tensor.element_size() else tensor.to(converted.device)

        return super()._apply(keep_bits, recurse)

    def of(self, split: str) -> dict[str, Any]:
        """The metrics of a split, by key."""
        return {key: metric for key, metric in self.items() if key.startswith(f"{split}/")}

    def check(self) -> None:
        """Raises UserError for a further metric that is not one number for probabilities (N, C) and codes (N,)."""
        for name in self.further:
            metric = deepcopy(self.of("train")[f"train/{name}"]).cpu()
            try:
                metric.update(torch.eye(self.num_classes), torch.arange(self.num_classes))
                shape = tuple(metric.compute().shape)
            except (TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise UserError(f"metric {name}: cannot be computed ({first_line(error)}).") from error
            if math.prod(shape) != 1:
                ways = "Average it over the classes."
                raise UserError(f"metric {name}: expected one number, but it has the shape {shape}. {ways}")

    def reset(self, split: str) -> None:
        """Forgets what the metrics of a split have accumulated, such as an interrupted epoch's batches."""
        for metric in self.of(split).values():
            metric.reset()

    def add_batch(self, split: str, losses: Tensor, correct: Tensor, probabilities: Callable, codes: Tensor) -> None:
        """Updates the metrics of a split: losses (N,), correct (N,) bool, class codes (N,).

        `probabilities` returns the (N, C) probabilities; it is only called for further metrics.
        """
        metrics = self.of(split)
        metrics[f"{split}/loss"].update(losses)
        metrics[f"{split}/acc"].update(correct)
        if self.further:
            computed = probabilities()
            for name in self.further:
                metrics[f"{split}/{name}"].update(computed, codes)
