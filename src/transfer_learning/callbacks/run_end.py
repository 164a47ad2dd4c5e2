"""What callbacks need to know of a run: which epoch is the best so far, and when the run ends."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch


class RunEndCallback(pl.Callback):
    """A callback that `train` calls once more after the test of the best epoch, before it writes the results."""

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> Mapping[str, float] | None:
        """`model` has the weights of the best epoch, which is counted from 1, in evaluation mode.

        Numbers that it returns are added to the results of the run, `metrics.json`.
        """


def validate(trainer: Any, model: Any, **settings: Any) -> Mapping[str, float]:
    """The results of `trainer.validate`. Loggers do not get them: their curves have the epochs of the fit alone."""
    loggers, trainer.loggers = trainer.loggers, []
    try:
        return trainer.validate(model, verbose=False, **settings)[0]
    finally:
        trainer.loggers = loggers


def monitoring_checkpoint(trainer: Any) -> Any:
    """The trainer's first ModelCheckpoint that monitors something, or None."""
    return next((callback for callback in trainer.checkpoint_callbacks if callback.monitor), None)


def improves(trainer: Any) -> bool:
    """Whether the epoch is the best so far; asked before ModelCheckpoint has saved it. Without one, every epoch is."""
    checkpoint = monitoring_checkpoint(trainer)
    if not checkpoint:
        return True
    value, best = trainer.callback_metrics.get(checkpoint.monitor), checkpoint.best_model_score
    better = torch.lt if checkpoint.mode == "min" else torch.gt
    return value is not None and (best is None or bool(better(value, best.to(value.device))))
