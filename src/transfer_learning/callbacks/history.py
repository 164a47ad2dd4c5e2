"""One line an epoch, on the terminal and in memory."""

import time

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

COLUMNS = {"train/loss": "loss", "train/acc": "accuracy", "val/loss": "validation loss", "val/acc": "validation accuracy"}


class History(pl.Callback):
    """Records each epoch and prints it.

    Attributes:
        rows: one dict an epoch: "epoch" (from 1), the keys of `COLUMNS` (means over images; validation's where there was
            one), "seconds" (from the end of the epoch before, so validation and checkpoints are in it).
        first_step: `time.perf_counter()` when the first step began.
    """

    def __init__(self):
        self.rows: list[dict[str, float]] = []

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.mark = self.first_step = time.perf_counter()
        self.validated = False

    def on_validation_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        now = time.perf_counter()
        known = [key for key in COLUMNS if key in trainer.callback_metrics and (self.validated or not key.startswith("val/"))]
        measured = {key: trainer.callback_metrics[key].item() for key in known}
        self.validated = False
        row = {"epoch": trainer.current_epoch + 1, **measured, "seconds": now - self.mark}
        self.mark = now
        self.rows.append(row)
        shown = "  ".join(f"{COLUMNS[key]} {value:.4f}" for key, value in measured.items())
        rank_zero_info(f"epoch {row['epoch']:3d}/{trainer.max_epochs}  {shown}  {row['seconds']:.1f} s")
