"""How Lightning writes and reads the files of checkpoints: Lightning's plugins for it."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.plugins.io import CheckpointIO, TorchCheckpointIO

from transfer_learning.engine.checkpoint import read_checkpoint
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import atomic_write


class BackgroundWriter(CheckpointIO):
    """Writes the checkpoints of a step while the training goes on. They are complete before those of the next begin.

    So there are copies of one step at most. A failure is raised when the next checkpoint is saved, or at the end of the
    fit. A process that is killed may have printed one epoch more than its last checkpoint has. Lightning's
    AsyncCheckpointIO writes a tensor that a checkpoint has twice, such as an average of weights, two times.

    Args:
        files: writes and reads the files.
    """

    def __init__(self, files: CheckpointIO):
        self.files = files
        self._step: int | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._writing: list[Future] = []

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Copies the checkpoint's tensors. Raises what went wrong with those of the step before."""
        if checkpoint["global_step"] != self._step:
            self.teardown()
        self._step, self._pool = checkpoint["global_step"], self._pool or ThreadPoolExecutor(1)
        before = list(self._writing)  # of this step, such as best.ckpt
        self._writing.append(self._pool.submit(self._write, before, _copy(checkpoint), path, storage_options))

    def _write(self, before: list[Future], checkpoint: Any, path: str | Path, storage_options: Any) -> None:
        """Writes a file, but none after another one of its step that failed: last.ckpt names best.ckpt."""
        for each in before:
            each.result()
        self.files.save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, *arguments: Any, **settings: Any) -> dict:
        self.teardown()
        return self.files.load_checkpoint(*arguments, **settings)

    def remove_checkpoint(self, path: str | Path) -> None:
        self.teardown()
        self.files.remove_checkpoint(path)

    def teardown(self) -> None:
        """Waits for the files. Raises what went wrong with the first of them, once."""
        writing, self._writing, pool, self._pool = self._writing, [], self._pool, None
        if pool:
            pool.shutdown()
        for each in writing:
            each.result()


def _copy(checkpoint: Mapping[str, Any]) -> Any:
    """The same containers with copies of the tensors, one copy of a tensor that is in it twice."""
    copies: dict[tuple, torch.Tensor] = {}

    def copy(tensor: torch.Tensor) -> torch.Tensor:
        key = tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride()
        if key not in copies:
            copies[key] = tensor.detach().cpu() if tensor.device.type != "cpu" else tensor.detach().clone()
        return copies[key]

    return apply_to_collection(checkpoint, torch.Tensor, copy)


class CheckpointFile(TorchCheckpointIO):
    """Writes checkpoints atomically, and reads them with `read_checkpoint`.

    Lightning's own plugin gathers the file in memory, then in the folder for temporary files: slower, and not atomic.

    Args:
        before_save: is called with the content of each checkpoint, to which it may add keys, before it is written.
    """

    def __init__(self, before_save: Callable[[dict], None] | None = None):
        self.before_save = before_save

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: None = None) -> None:
        """Raises UserError if the file cannot be written."""
        if self.before_save:
            self.before_save(checkpoint)
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch wraps the system's error
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            ways = "Free some space there, or choose another folder."
            raise UserError(f"{path}: {first_line(reason)}. {ways}") from error

    def load_checkpoint(self, path: str | Path, map_location=None, weights_only: bool | None = None) -> dict:
        """ModelCheckpoint's files become those beside this one, since the folder of a run may move.

        Raises UserError as `read_checkpoint`.
        """
        checkpoint, folder = read_checkpoint(path), os.path.realpath(Path(path).parent)

        for state in checkpoint.get("callbacks", {}).values():
            if before := state.get("dirpath"):
                best = {moved(file, before, folder): score for file, score in state["best_k_models"].items()}
                paths = ("best_model_path", "kth_best_model_path", "last_model_path")
                state |= {key: moved(state[key], before, folder) for key in paths}
                state |= {"dirpath": folder, "best_k_models": best}
        return checkpoint


def moved(file: str, before: str, folder: str) -> str:
    """The path of a file after its folder `before` has moved to `folder`; "" stays as it is.

    The file may be in a folder within `before`, since a slash in a metric's name makes one.
    """
    return os.path.join(folder, os.path.relpath(file, before)) if file else file
