"""Train, test the best epoch, report."""

import os
import shutil
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.callbacks.history import History
from transfer_learning.callbacks.layer_table import count_parameters
from transfer_learning.checkpoint import read
from transfer_learning.data.batch import Batch
from transfer_learning.data.module import ImageData
from transfer_learning.errors import UserError
from transfer_learning.hardware import device_name, set_up_cpu
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.network import Network
from transfer_learning.report import summary, wilson_interval, write_report

set_up_cpu()

# Lightning on itself, and on what is meant here: the frozen part stays in evaluation mode, nothing is logged by step.
for message in (
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",
    ".*smaller than the logging interval.*",
    ".*is not empty.*",
):
    warnings.filterwarnings("ignore", message)


def train(
    data: ImageData,
    model: Classifier,
    trainer: pl.Trainer,
    settings: Mapping | None = None,
    compile: bool = False,
    started: float | None = None,
    resume: str | Path | None = None,
) -> dict[str, float | int | str | None]:
    """Fits the model and tests its best epoch. `metrics.json` and `curves.png` go to `trainer.default_root_dir`.

    Args:
        trainer: its first ModelCheckpoint that monitors something decides which epoch is the best; without one it is the last.
        settings: plain values, shown beside the results in TensorBoard's HPARAMS tab.
        compile: whether torch compiles the frozen part and, on a GPU, the trainable part (on a CPU, that takes longer than it saves).
        started: `time.perf_counter()` from which the time to the first step counts; None is now.
        resume: a checkpoint with everything, from which the fit goes on as if it had not ended there; None begins anew.

    Returns:
        What `metrics.json` holds: accuracies in [0, 1] (`val/acc_best` …), counts, seconds of the fit and of the encoding before it …

    Raises:
        UserError: no epoch would be, or was, validated and tested; to be compiled, without a compiler; a loss that is not finite;
            a checkpoint that cannot be read, is gone, or is another network's.
    """
    if 0 in (trainer.limit_train_batches, trainer.limit_val_batches, trainer.limit_test_batches):
        raise UserError(
            "trainer.limit_…_batches: expected more than 0, since training is validated and its best epoch tested."
        )
    history = History()
    trainer.callbacks.append(history)
    model.train()  # one that was loaded comes in evaluation mode
    rank_zero_info(f"{device_name(trainer.strategy.root_device)}, precision {trainer.precision}")
    if compile:
        compile_network(model.network, trainer.strategy.root_device)
    start = time.perf_counter()
    frozen = model.network.frozen.key
    key = {"frozen": frozen, "precision": str(trainer.precision)} | (
        {"compiled": True} if compile else {}
    )  # which rounds otherwise
    data.encode_once(frozen_pass(data, model, trainer), frozen and key)
    encoded = time.perf_counter()
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    ended = time.perf_counter()

    validated = {row["epoch"]: row for row in history.rows if "val/acc" in row}
    if not validated:
        raise UserError(
            f"trainer.max_epochs={trainer.max_epochs}: no epoch ended with a validation, expected at least one."
        )
    seconds = {
        "seconds": ended - encoded + sum(row["seconds"] for row in history.rows[: history.resumed]),
        "seconds_encoding": encoded - start,
        "seconds_to_first_step": (history.first_step or ended) - (start if started is None else started),
    }
    monitoring = next((callback for callback in trainer.checkpoint_callbacks if callback.monitor), None)
    path = (monitoring and monitoring.best_model_path) or None
    best = validated[read(path)["epoch"] + 1 if path else max(validated)]
    if path and best.get(monitoring.monitor, score := monitoring.best_model_score) != score:
        # Saved by an epoch that was cut off and repeated, on a device that repeats no bits: its own accuracy stands by its test's.
        best = best | trainer.validate(model, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)[0]
    tested = trainer.test(model, datamodule=data, ckpt_path=path, weights_only=True, verbose=False)[0]
    data.encoded = {}  # images again, for whatever model comes next
    metrics = _metrics(data, model, trainer, history, best, tested, seconds)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(
                    dict(settings or {}), {key: metrics[key] for key in ("val/acc_best", "test/acc")}
                )
                logger.finalize("success")
        write_report(trainer.default_root_dir, metrics, history.rows)
    rank_zero_info(summary(trainer.default_root_dir, metrics))
    return metrics


def compile_network(network: Network, device: torch.device) -> None:
    """In place, so that checkpoints keep their keys. Raises UserError where there is no compiler."""
    compiler = os.environ.get("CXX", "g++")
    if not shutil.which(compiler):
        raise UserError(
            f"trainer.compile=true: no C++ compiler {compiler}; install one, name one in CXX, or leave trainer.compile=false."
        )
    for part in [network.frozen] if device.type == "cpu" else [network.frozen, network.trainable]:
        if list(part.parameters()):
            part.compile()


def frozen_pass(data: ImageData, model: Classifier, trainer: pl.Trainer) -> Callable[[Batch], torch.Tensor]:
    """The frozen part as the fit would use it: on its device, in its precision."""
    device, precision = trainer.strategy.root_device, trainer.precision_plugin
    frozen = precision.convert_module(model.network.frozen.to(device))

    def encode(batch: Batch) -> torch.Tensor:
        batch = data.on_after_batch_transfer(model.transfer_batch_to_device(batch, device, 0))
        with precision.forward_context():
            return frozen(precision.convert_input(batch.x))

    return encode


def _metrics(
    data: ImageData,
    model: Classifier,
    trainer: pl.Trainer,
    history: History,
    best: Mapping,
    tested: Mapping,
    seconds: dict,
) -> dict[str, float | int | str | None]:
    epochs, batches = history.rows, dict(zip(("train", "val", "test"), (*history.batches, trainer.num_test_batches[0])))
    each = {
        "train": data.batch_size,
        "val": data.batch_size * trainer.world_size,
        "test": data.batch_size * trainer.world_size,
    }
    images = {
        part: min(len(rows), batches[part] * each[part]) for part, rows in data.parts.items()
    }  # fewer where trainer.limit_… says so
    low, high = wilson_interval(round(tested["test/acc"] * images["test"]), images["test"])
    trainable, frozen = count_parameters(model.network)
    return {
        "val/acc_best": best["val/acc"],
        "epoch_best": best["epoch"],
        "val/acc_last": [row["val/acc"] for row in epochs if "val/acc" in row][-1],
        "train/acc_last": epochs[-1]["train/acc"],
        "test/acc": tested["test/acc"],
        "test/acc_low": low,
        "test/acc_high": high,
        "test/loss": tested["test/loss"],
        "parameters_trainable": trainable,
        "parameters_frozen": frozen,
        "images_train": images["train"],
        "images_val": images["val"],
        "images_test": images["test"],
        "epochs": len(epochs),
        **seconds,
        "seconds_per_epoch": statistics.median(row["seconds"] for row in epochs[1:]) if len(epochs) > 1 else None,
        "device": device_name(trainer.strategy.root_device),
        "precision": str(trainer.precision),
    }
