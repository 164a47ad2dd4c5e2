"""What would stop a training later is found before images are decoded and features are computed."""

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher

from transfer_learning.callbacks.run_end import monitoring_checkpoint
from transfer_learning.data.batch import used_batches
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.batch_norm import check_last_batch, check_synchronized
from transfer_learning.engine.checkpoint import read_checkpoint
from transfer_learning.engine.checkpoint_file import BackgroundWriter, CheckpointFile, moved
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.metrics import Monitor
from transfer_learning.models.network import Network, pass_black_image
from transfer_learning.optim.schedules import endless_error, never_learns_error
from transfer_learning.utilities.errors import ArgumentError, UserError, first_line
from transfer_learning.utilities.hardware import check_gpu

EPOCH_WITH_VALIDATION = "expected at least one epoch that ends with a validation."


def check_training(
    data: ImageDataModule,
    model: Classifier,
    trainer: pl.Trainer,
    compile: bool = False,
    resume: str | Path | None = None,
    monitor: str | None = None,
    test: bool = True,
) -> None:
    """Lists the images, but decodes none. Arguments and errors are those of `train`."""
    Monitor.of(trainer, monitor).check(model.logged_metrics(), trainer, monitor)
    model.metrics.check()
    check_epochs(model, trainer)
    check_arguments(model.network)
    check_steps(data, model, trainer, ("train", "val", "test") if test else ("train", "val"))
    check_first_validation(data, trainer)
    saved = read_checkpoint(resume) if resume else {}
    check_not_reused(trainer, saved)
    if compile:
        check_compiler(trainer.strategy.root_device)
    if resume:
        check_resume(data, model, trainer, Path(resume), saved)


def check_steps(data: ImageDataModule, model: Classifier, trainer: pl.Trainer, splits: Sequence[str]) -> None:
    """Raises UserError for what stops the steps with these splits. Lists the images, but decodes none."""
    check_gpu(trainer.strategy.root_device)
    if isinstance(launcher := trainer.strategy.launcher, _MultiProcessingLauncher):
        reason = "it trains copies of the model, whose history is lost; expected ddp, or one device."
        raise ArgumentError("strategy", f"ddp_{launcher._start_method}", reason)
    for name in ("accumulate_grad_batches", *(f"limit_{split}_batches" for split in splits)):
        if getattr(trainer, name) <= 0:
            raise ArgumentError(name, getattr(trainer, name), "expected more than 0.")
    if (clipped := trainer.gradient_clip_val) is not None and not clipped >= 0:
        raise ArgumentError("gradient_clip_val", clipped, "expected 0 or more.")
    data.list_images()
    check_not_empty(data, splits)
    data.check_batch_size(trainer.world_size)
    check_same("model", model.class_names, model.preprocessing, data)
    check_number_of_batches(data, trainer, splits)
    check_image_size(data, model.network)
    check_synchronized(model.network, trainer)
    check_last_batch(data, model.network, trainer)


def check_not_empty(data: ImageDataModule, splits: Sequence[str]) -> None:
    """Raises UserError if one of the splits has no images."""
    for split in splits:
        if not len(data.splits[split]):
            raise UserError(f"there are no {split} images; expected at least one in each of {', '.join(splits)}.")


def check_same(where: str, class_names: Sequence[str], preprocessing: Preprocessing, data: ImageDataModule) -> None:
    """Raises UserError if the class names, their order, or the preprocessing are not those of the data."""
    for code, (own, other) in enumerate(zip_longest(class_names, data.class_names)):
        if own != other:
            expected = "expected the same names in the same order"
            raise UserError(f"{where}: class {code} is {own or 'absent'}, in the data {other or 'absent'}; {expected}.")
    if preprocessing != data.preprocessing:
        raise UserError(f"{where}: has {preprocessing}, the data {data.preprocessing}; expected the same.")


def check_arguments(network: Network) -> None:
    """Raises UserError if the constructor cannot be called with `arguments`, as `checkpoint.load` does."""
    of_source = {"weights": None, "sha256": None} if network.frozen_source else {}
    try:
        inspect.signature(type(network)).bind(**{**network.arguments, **of_source})
    except TypeError as error:
        expected = "expected `arguments` with which its checkpoint can call the constructor"
        raise UserError(f"the network {type(network).__qualname__}: {expected}, but {error}.") from error


def check_not_reused(trainer: pl.Trainer, saved: Mapping) -> None:
    """Raises UserError if the trainer or a callback has state of an earlier training that `saved` does not replace.

    Otherwise the training would continue from that state, or report an epoch of the earlier training as the best.
    `saved` is a checkpoint's content, or empty.
    """
    checkpoints: Any = trainer.checkpoint_callbacks
    with_state: list[Any] = [each for each in checkpoints if each.best_model_path or each.last_model_path]
    with_state += [each for each in trainer.early_stopping_callbacks if each.best_score.isfinite()]  # at first infinite
    used = [each for each in with_state if each.state_key not in saved.get("callbacks", {})]
    used += [trainer] if trainer.global_step and not saved else []
    if used:
        name = type(used[0]).__name__
        raise UserError(f"this {name} has taken part in another training; make one for each training.")


def check_resume(data: ImageDataModule, model: Classifier, trainer: pl.Trainer, path: Path, saved: dict) -> None:
    """Raises UserError if a checkpoint is of another training, or its best epoch is missing or after the end.

    Or if it is one of weights alone.
    """
    if not saved.keys() >= {"optimizer_states", "callbacks", "history"}:
        raise UserError(f"{path}: has weights alone; expected a checkpoint of the whole training, such as last.ckpt.")
    model.on_load_checkpoint(saved)
    about, callback = saved["model"], monitoring_checkpoint(trainer)
    check_same(str(path), about["class_names"], Preprocessing(**about["preprocessing"]), data)
    check_epoch_end(path, saved)
    state = saved.get("callbacks", {}).get(callback.state_key, {}) if callback else {}
    if not (best := state.get("best_model_path", "")):
        return
    folder, ways = state["dirpath"], "With the plugin CheckpointFile, copies of its files can be continued elsewhere."
    if isinstance(trainer.strategy.checkpoint_io, (BackgroundWriter, CheckpointFile)):  # the folder may have moved
        folder, ways = os.path.realpath(path.parent), "Copy its files to continue elsewhere."
    best = Path(moved(best, state["dirpath"], folder))
    if callback.dirpath != folder:  # Lightning would forget which epoch is the best
        reason = f"expected that of the checkpoints of {path}: {folder}"
        raise ArgumentError("dirpath", callback.dirpath, f"{reason}. {ways}")
    if not best.is_file():
        others = set(path.parent.glob("*.ckpt")) - {path}  # a newer one may have replaced it
        if not others:
            ways = "Restore it, or begin in another folder."
            raise UserError(f"{best}: no such checkpoint, and it has the best epoch so far. {ways}")
    elif (epochs := trainer.max_epochs or -1) > 0:
        epoch = read_checkpoint(best)["epoch"] + 1
        if epoch > epochs:
            reason = f"{best} is of epoch {epoch}; expected {epoch} or more."
            raise ArgumentError("max_epochs", epochs, reason)


def check_epoch_end(path: Path, saved: Mapping) -> None:
    """Raises UserError for a checkpoint from within an epoch, whose remaining batches would be other images."""
    if len(saved["history"]["rows"]) > saved["epoch"]:
        return
    progress = saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    at_validation = progress["current"]["completed"] == progress["current"]["ready"]  # else one batch fewer
    if not (progress["is_last_batch"] and at_validation):
        raise UserError(f"{path}: is from within epoch {saved['epoch'] + 1}; expected one of the end of an epoch.")


def check_epochs(model: Classifier, trainer: pl.Trainer) -> None:
    """Raises ArgumentError if a schedule has no end, or the fit ends before a validation or before a group learns."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs is None or epochs < 0:
        if model.schedule and trainer.max_steps < 0:
            raise endless_error()
        return
    if every is not None and every > epochs > 0:
        raise ArgumentError("check_val_every_n_epoch", every, f"expected at most max_epochs={epochs}.")
    if epochs == 0 or trainer.max_steps == 0:
        name = "max_steps" if epochs else "max_epochs"
        raise ArgumentError(name, 0, EPOCH_WITH_VALIDATION)
    for group in model.network.parameter_groups():
        if epochs <= group.from_epoch:
            raise never_learns_error(group)


def check_number_of_batches(data: ImageDataModule, trainer: pl.Trainer, splits: Sequence[str]) -> None:
    """Raises ArgumentError if the trainer's limits or devices leave no batch, or no validation within an epoch."""
    for split in splits:
        images, name = len(data.splits[split]), f"limit_{split}_batches"
        share = trainer.world_size if split != "train" else 1  # a training batch is shared among the devices
        if images < share:
            reason = f"expected at most {images}, the number of {split} images."
            raise ArgumentError("devices", trainer.world_size, reason)
        batches, limit = math.ceil(images / (data.batch_size * share)), getattr(trainer, name)
        used = used_batches(batches, limit)
        if not used:
            reason = f"it leaves none of {batches} batches; expected {1 / batches:.2g} or more."
            raise ArgumentError(name, limit, reason)
        interval = trainer.val_check_interval
        every_epoch = trainer.check_val_every_n_epoch is not None
        if split == "train" and isinstance(interval, int) and interval > used and every_epoch:
            raise ArgumentError("val_check_interval", interval, f"expected at most the {used} batches of an epoch.")


def check_first_validation(data: ImageDataModule, trainer: pl.Trainer) -> None:
    """Raises ArgumentError if the training ends before its first validation."""
    interval, every = trainer.val_check_interval, trainer.check_val_every_n_epoch
    window = trainer.accumulate_grad_batches
    if not isinstance(interval, (int, float)):  # a time
        return
    used = used_batches(math.ceil(len(data.splits["train"]) / data.batch_size), trainer.limit_train_batches)
    first = interval if isinstance(interval, int) else max(1, int(used * interval))
    first += used * (every - 1 if every else 0)
    epochs, steps_per_epoch = trainer.max_epochs or -1, math.ceil(used / window)
    if 0 < epochs * used < first:
        reason = f"expected at most the {epochs * used} batches of {epochs} epochs."
        raise ArgumentError("val_check_interval", interval, reason)
    steps = first // used * steps_per_epoch + math.ceil(first % used / window)
    if 0 < trainer.max_steps < steps:
        reason = f"expected at least the {steps} steps before the first validation."
        raise ArgumentError("max_steps", trainer.max_steps, reason)


def check_image_size(data: ImageDataModule, network: Network) -> None:
    """Raises ArgumentError if an augmentation step gives images a `size` that the network does not accept."""
    expected, size = data.preprocessing.image_size, data.training_size
    if size != expected:
        try:
            pass_black_image(network, size)
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = f"the network accepts only images of {expected} pixels, leave it out ({first_line(error)})."
            raise ArgumentError("size", size, reason) from error


def check_compiler(device: torch.device) -> None:
    """Raises ArgumentError, with torch's reason, if torch cannot compile for the device."""
    try:
        torch.compile(_add_one)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds
        reason = first_line(getattr(error, "inner_exception", error))
        ways = "Install what is missing, name a C++ compiler in CXX, or do not compile."
        raise ArgumentError("compile", True, f"torch cannot compile for {device.type} ({reason}). {ways}") from error


def _add_one(numbers: torch.Tensor) -> torch.Tensor:
    return numbers + 1
