"""Write a checkpoint, read it, and rebuild a trained model from it.

A checkpoint is tensors and plain values (`Classifier.on_save_checkpoint`). Frozen weights that come from a name or a file are not in it:
it tells where they came from. Only the networks listed here are ever built from a checkpoint.
"""

import os
import zipfile
from pathlib import Path

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from transfer_learning.atomic import replacing
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
    saved = read(path)
    about = saved["model"]
    arguments, frozen = dict(about["arguments"]), about["frozen_weights"]
    if about["network"] not in NETWORKS:
        raise UserError(
            f"{path}: its network is {about['network']}, expected one of {', '.join(NETWORKS)} (NETWORKS in checkpoint.py)."
        )
    if frozen:
        arguments |= {"weights": weights or frozen["name"], "sha256": frozen["sha256"]}
    try:
        network = NETWORKS[about["network"]](**arguments)
    except (TypeError, UserError) as error:
        raise UserError(
            f"{path}: its {about['network']} cannot be built again: {error} Weights that moved: load(path, weights=…)."
        ) from error
    model = Classifier(network, about["class_names"], about["image_size"])
    model.on_load_checkpoint(saved)
    model.load_state_dict(saved["state_dict"])
    return model.eval()


def read(path: str | Path) -> dict:
    """What a checkpoint holds, on the CPU: tensors and plain values, each byte as it was written.

    Raises:
        UserError: no such file; it is cut off, altered or something else; it holds code.
    """
    if not Path(path).is_file():
        raise UserError(f"{path}: no such checkpoint; expected RUN/checkpoints/best.ckpt or last.ckpt.")
    try:
        with zipfile.ZipFile(path) as file:
            altered = (
                file.testzip()
            )  # torch does not look at the checksums that it writes, and takes what is marked as a folder for empty
            if altered or any(member.external_attr for member in file.infolist()):
                raise ValueError(f"{altered or 'an entry'} is not as it was written")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if missing := {"network", "arguments", "class_names", "image_size", "frozen_weights"} - set(saved["model"]):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        saved["state_dict"].items()
    except Exception as error:  # zipfile and torch raise many kinds
        raise UserError(f"{path}: not a checkpoint of this project's, or damaged ({first_line(error)}).") from error
    return saved


class CheckpointFile(TorchCheckpointIO):
    """A checkpoint is complete or the one before (`atomic.replacing`), and read as `read` does.

    Lightning's own gathers the file in memory, and writes it to the folder for temporary files first: slower, and not atomic across disks.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: None = None) -> None:
        """Raises UserError where the file cannot be written."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            reason = (
                error.__context__ if isinstance(error.__context__, OSError) else error
            )  # torch hides that the disk is full
            raise UserError(
                f"{path}: {first_line(reason)}. Make room there, or choose another folder: hydra.run.dir=…"
            ) from error

    def load_checkpoint(self, path: str | Path, map_location=None, weights_only: bool | None = None) -> dict:
        """Raises UserError as `read` does. What ModelCheckpoint noted as its files are those beside this one: a run's folder may move."""
        checkpoint, folder = read(path), os.path.realpath(Path(path).parent)

        def here(file: str) -> str:
            return file and os.path.join(folder, os.path.basename(file))

        for state in checkpoint.get("callbacks", {}).values():
            if state.get("dirpath"):
                state |= {
                    key: here(state[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")
                }
                state |= {
                    "dirpath": folder,
                    "best_k_models": {here(file): score for file, score in state["best_k_models"].items()},
                }
        return checkpoint
