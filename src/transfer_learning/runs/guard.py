"""Ties a training to the folder of its run."""

import signal
from typing import Any

from transfer_learning.callbacks.run_end import RunEndCallback
from transfer_learning.runs.folder import RunFolder


class RunGuard(RunEndCallback):
    """Tells the folder that the training begins, and writes no results into a folder that is not the run's any more."""

    def __init__(self, folder: RunFolder):
        self.folder, self._on_sigterm = folder, signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Any, model: Any) -> None:
        self.folder.begin_training()
        if trainer.world_size > 1:  # Lightning's handler waits for the other processes, which may wait for this one
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def on_exception(self, trainer: Any, model: Any, exception: BaseException) -> None:
        """Ends the other processes of an interrupted run before Lightning does, whose observer would kill this one."""
        others = getattr(trainer.strategy.launcher, "procs", [])
        if isinstance(exception, KeyboardInterrupt):
            for process in others:
                process.kill()
            others.clear()

    def on_run_end(self, trainer: Any, model: Any, best_epoch: int) -> None:
        """Raises UserError as `RunFolder.check_ours`."""
        self.folder.check_ours()
        self.folder.begin_training()  # Lightning starts no training if all epochs are done
