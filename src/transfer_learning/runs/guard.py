"""Ties a training to the folder of its run."""

from typing import Any

from transfer_learning.callbacks.run_end import RunEndCallback
from transfer_learning.runs.folder import RunFolder


class RunGuard(RunEndCallback):
    """Writes into each checkpoint which run it belongs to, and stops a training whose folder is not its own any more.

    Checkpoints get the key "run": `RunFolder.about`. Raises UserError as `RunFolder.check_ours`.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder

    def on_train_start(self, trainer: Any, model: Any) -> None:
        self.folder.begin_training()

    def on_save_checkpoint(self, trainer: Any, model: Any, checkpoint: dict) -> None:
        self.folder.check_ours()
        checkpoint["run"] = self.folder.about

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> None:
        self.folder.check_ours()
