"""One line an epoch, on the terminal, in memory and in the checkpoint."""

import time

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.models.classifier import Classifier

COLUMNS = {
    "train/loss": "loss",
    "train/acc": "accuracy",
    "val/loss": "validation loss",
    "val/acc": "validation accuracy",
}


class History(pl.Callback):
    """Records each epoch and prints it. A fit that goes on from a checkpoint has the epochs before it too, and logs their curves anew.

    Attributes:
        rows: one dict an epoch: "epoch" (from 1), the keys of `COLUMNS` (means over images; validation's where there was
            one), the last step's learning rates, "seconds" (from the end of the epoch before, so validation and checkpoints are in it).
        batches: of an epoch's training and validation on this device, (int, int).
        resumed: epochs that come from a checkpoint.
        first_step: `time.perf_counter()` when the first step began, or None.
    """

    def __init__(self):
        self.rows: list[dict[str, float]] = []
        self.batches, self.resumed, self.stopped, self.first_step = (0, 0), 0, False, None

    def on_save_checkpoint(self, trainer: pl.Trainer, model: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint["history"] = {"rows": self.rows, "batches": self.batches, "stopped": trainer.should_stop}

    def on_load_checkpoint(self, trainer: pl.Trainer, model: pl.LightningModule, checkpoint: dict) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # a test reads its weights alone
            return
        history = checkpoint["history"]
        self.rows, self.batches, self.stopped = list(history["rows"]), tuple(history["batches"]), history["stopped"]
        self.resumed = len(self.rows)

    def on_fit_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        if self.rows:
            rank_zero_info(f"goes on after epoch {self.rows[-1]['epoch']} of {trainer.max_epochs}")
        for row in (
            self.rows
        ):  # what was logged since the checkpoint, or never reached the disk, would be twice there or missing
            for logger in trainer.loggers:
                logger.log_metrics(
                    {key: value for key, value in row.items() if key not in ("epoch", "seconds")}, step=row["epoch"]
                )

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.mark = self.first_step = time.perf_counter()
        self.validated = False
        trainer.should_stop = self.stopped  # an early stop stays one, whether or not its epoch was the last to be saved

    def on_validation_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, model: Classifier) -> None:
        now = time.perf_counter()
        known = [
            key for key in COLUMNS if key in trainer.callback_metrics and (self.validated or not key.startswith("val/"))
        ]
        measured = {key: trainer.callback_metrics[key].item() for key in known}
        self.validated = False
        row = {"epoch": trainer.current_epoch + 1, **measured, **model.rates, "seconds": now - self.mark}
        self.batches = trainer.num_training_batches, sum(trainer.num_val_batches)
        self.mark = now
        self.rows.append(row)
        shown = "  ".join(f"{COLUMNS[key]} {value:.4f}" for key, value in measured.items())
        rank_zero_info(f"epoch {row['epoch']:3d}/{trainer.max_epochs}  {shown}  {row['seconds']:.1f} s")
