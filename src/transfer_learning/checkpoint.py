"""Write a checkpoint, and rebuild a trained model from it.

A checkpoint is tensors and plain values (`Classifier.on_save_checkpoint`). Frozen weights that come from a name or a file are not in it:
it tells where they came from. Only the networks listed here are ever built from a checkpoint.
"""

import os
from pathlib import Path

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from transfer_learning.errors import UserError, first_line
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.cnn import CNN
from transfer_learning.models.pretrained import Pretrained

NETWORKS = {network.__name__: network for network in (CNN, Pretrained)}


def load(path: str | Path, weights: str | None = None) -> Classifier:
    """Rebuilds a trained model, in evaluation mode, on the CPU.

    Args:
        path: a checkpoint, `best.ckpt` or `last.ckpt`.
        weights: where the frozen weights are now, if not where they were: a name or a file of the same SHA-256.

    Returns:
        A module that maps images (N, 3, H, W) float in [0, 1] to probabilities (N, C); it has `class_names` and `image_size`.

    Raises:
        UserError: no such file, not a checkpoint of this project, or its network or frozen weights cannot be had again.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; expected RUN/checkpoints/best.ckpt or last.ckpt.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        about = saved["model"]
        network_class, arguments, frozen = NETWORKS[about["network"]], dict(about["arguments"]), about["frozen_weights"]
    except Exception as error:  # torch raises many kinds on a file that is cut off, holds code or is something else
        raise UserError(f"{path}: not a checkpoint of this project's networks, {', '.join(NETWORKS)} ({first_line(error)}).") from error
    if frozen:
        arguments |= {"weights": weights or frozen["name"], "sha256": frozen["sha256"]}
    try:
        network = network_class(**arguments)
    except (TypeError, UserError) as error:
        raise UserError(
            f"{path}: its {about['network']} cannot be built again: {error} Weights that moved: load(path, weights=…)."
        ) from error
    model = Classifier(network, about["class_names"], about["image_size"])
    model.on_load_checkpoint(saved)
    try:
        model.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{path}: its weights do not fit its own description of the network ({first_line(error)}).") from error
    return model.eval()


class CheckpointFile(TorchCheckpointIO):
    """A checkpoint is complete or the one before: written beside its place, and moved there when it is on the disk.

    Lightning's own gathers the file in memory, and writes it to the folder for temporary files first: slower, and not atomic across disks.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: None = None) -> None:
        """Raises UserError where the file cannot be written."""
        path = Path(path)
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch's own, where a disk fills under it
            raise UserError(f"{path}: {first_line(error)}. Make room there, or choose another folder: hydra.run.dir=…") from error
        finally:
            partial.unlink(missing_ok=True)
