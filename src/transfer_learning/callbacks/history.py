"""One line per epoch: on the terminal, in memory and in the checkpoint."""

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.callbacks.loggers import adapters
from transfer_learning.reporting.metric_names import label


class History(pl.Callback):
    """Records each epoch and prints it. After a resume it has the earlier epochs too, and logs their curves again.

    Attributes:
        rows: one dict per epoch: "epoch" (from 1), the epoch's metrics (`train/loss` ...; those of validation if there
            was one), the learning rates of its last step, and "seconds" since the end of the epoch before.
        batches: numbers of training and of validation batches of an epoch on this device.
        resumed: the number of epochs that come from a checkpoint.
        first_step: `time.perf_counter()` at the beginning of the first step, or None.
    """

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.batches: tuple[int, int] = (0, 0)
        self.resumed, self.stopped = 0, False
        self.first_step: float | None = None

    def setup(self, trainer: Any, model: Any, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is restored
            self._clear()

    def on_save_checkpoint(self, trainer: Any, model: Any, checkpoint: dict) -> None:
        stopped = trainer.should_stop and any(each.stopping_reason.value for each in trainer.early_stopping_callbacks)
        checkpoint["history"] = {"rows": self.rows, "batches": self.batches, "stopped": stopped}

    def on_load_checkpoint(self, trainer: Any, model: Any, checkpoint: dict) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # a test only needs the weights
            return
        history = checkpoint["history"]
        self.rows, self.stopped = list(history["rows"]), history["stopped"]
        self.batches, self.resumed = tuple(history["batches"]), len(self.rows)

    def on_fit_start(self, trainer: Any, model: Any) -> None:
        # A loop that is restored with max_steps would take an epoch that has ended for one that has not.
        loop = trainer.fit_loop.epoch_loop
        self.max_steps, loop.max_steps = loop.max_steps, -1
        if self.rows:
            rank_zero_info(f"goes on after epoch {self.rows[-1]['epoch']} of {trainer.max_epochs}")
        for row in self.rows:  # a killed process may have logged more epochs than it saved, or fewer
            values = {key: value for key, value in row.items() if key not in ("epoch", "seconds")}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=row["epoch"])
            for adapter in adapters(trainer):
                adapter.epoch(row["epoch"], values)

    def on_train_start(self, trainer: Any, model: Any) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps
        for line in parameter_groups(model.network, trainer.optimizers[0]):
            rank_zero_info(line)
        self.epoch_start = self.first_step = time.perf_counter()
        self.validated = False
        trainer.should_stop = self.stopped  # early stopping stays in force although later checkpoints may be missing

    def on_fit_end(self, trainer: Any, model: Any) -> None:
        trainer.fit_loop.epoch_loop.max_steps = self.max_steps  # also if there was nothing to train

    def on_train_end(self, trainer: Any, model: Any) -> None:
        for callback in trainer.early_stopping_callbacks:
            if trainer.should_stop and callback.stopped_epoch == len(self.rows) - 1:
                reason = f"has not improved on {callback.best_score.item():.4f} in {callback.patience} validations"
                if callback.wait_count < callback.patience:
                    reason = "has reached a threshold"
                rank_zero_info(f"stopped early: {callback.monitor} {reason}")

    def on_validation_end(self, trainer: Any, model: Any) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: Any, model: Any) -> None:
        now = time.perf_counter()
        splits = ("train/", "val/") if self.validated else ("train/",)
        measured = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith(splits)}
        epoch, seconds = trainer.current_epoch + 1, now - self.epoch_start
        self.rows.append({"epoch": epoch, **measured, **model.learning_rates, "seconds": seconds})
        for adapter in adapters(trainer):
            adapter.epoch(epoch, measured)
        validation = sum(trainer.num_val_batches) or self.batches[1]  # 0 before the first one since a resume
        self.batches = trainer.num_training_batches, validation
        self.epoch_start, self.validated = now, False
        ordered = sorted(measured, key=lambda key: not key.startswith("train/"))
        shown = "  ".join(f"{label(key).removeprefix('training ')} {measured[key]:.4f}" for key in ordered)
        of = f"/{trainer.max_epochs}" if trainer.max_epochs > 0 else ""  # -1 is without an end
        rank_zero_info(f"epoch {epoch:3d}{of}  {shown}  {seconds:.1f} s")


def parameter_groups(network: Any, optimizer: Any) -> list[str]:
    """A line for each parameter group: its parameters, its highest learning rate, and when it begins to learn."""
    lines = []
    for group in network.parameter_groups():
        if group.parameters:
            rate = optimizer.defaults["lr"] * group.lr_scale
            begin = f" from epoch {group.from_epoch + 1} on" if group.from_epoch else ""
            count = sum(parameter.numel() for parameter in group.parameters)
            lines.append(f"trains {group.name}: {count:,} parameters, learning rate {rate:g}{begin}")
    return lines
