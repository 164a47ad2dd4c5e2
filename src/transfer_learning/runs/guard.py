"""Ties a training to the folder of its run."""

from typing import Any

from transfer_learning.callbacks.run_end import RunEndCallback
from transfer_learning.runs.folder import RunFolder


class RunGuard(RunEndCallback):
    """Tells the folder that the training begins, and writes no results into a folder that is not the run's any more."""

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def on_train_start(self, trainer: Any, model: Any) -> None:
        self.folder.begin_training()

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> None:
        """Raises UserError as `RunFolder.check_ours`."""
        self.folder.check_ours()
        self.folder.begin_training()  # Lightning starts no training if all epochs are done
