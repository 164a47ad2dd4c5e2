"""What would stop a training later is found before images are decoded and features are computed."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.batch_norm import check_last_batch, check_synchronized
from transfer_learning.engine.checkpoint import read
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.metrics import Monitor
from transfer_learning.models.network import Network, pass_black_image
from transfer_learning.optim.schedules import endless, never_learns
from transfer_learning.utilities.errors import ArgumentError, first_line
from transfer_learning.utilities.hardware import check_gpu


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
    check_epochs(model, trainer)
    check_steps(data, model, trainer, ("train", "val", "test") if test else ("train", "val"))
    if compile:
        check_compiler(trainer.strategy.root_device)
    if resume:
        model.on_load_checkpoint(read(resume))


def check_steps(data: ImageDataModule, model: Classifier, trainer: pl.Trainer, splits: Sequence[str]) -> None:
    """Raises UserError for what stops the steps with these splits. Lists the images, but decodes none."""
    check_gpu(trainer.strategy.root_device)
    for name in ("accumulate_grad_batches", *(f"limit_{split}_batches" for split in splits)):
        if getattr(trainer, name) <= 0:
            raise ArgumentError(name, getattr(trainer, name), "expected more than 0.")
    if (clipped := trainer.gradient_clip_val) is not None and not clipped >= 0:
        raise ArgumentError("gradient_clip_val", clipped, "expected 0 or more.")
    data.list_images()
    data.check_batch_size(trainer.world_size)
    check_number_of_batches(data, trainer, splits)
    check_image_size(data, model.network)
    check_synchronized(model.network, trainer)
    model.train()  # a loaded model is in evaluation mode
    check_last_batch(data, model.network, trainer)


def check_epochs(model: Classifier, trainer: pl.Trainer) -> None:
    """Raises ArgumentError if a schedule has no end, or the fit ends before a validation or before a group learns."""
    epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
    if epochs is None or epochs < 0:
        if model.schedule and trainer.max_steps < 0:
            raise endless()
        return
    if every is not None and every > epochs > 0:
        raise ArgumentError("check_val_every_n_epoch", every, f"expected at most max_epochs={epochs}.")
    if epochs == 0 or trainer.max_steps == 0:
        name = "max_steps" if epochs else "max_epochs"
        raise ArgumentError(name, 0, "expected at least one epoch that ends with a validation.")
    for group in model.network.parameter_groups():
        if epochs <= group.from_epoch:
            raise never_learns(group)


def check_number_of_batches(data: ImageDataModule, trainer: pl.Trainer, splits: Sequence[str]) -> None:
    """Raises ArgumentError if the trainer's limits leave no batch, or no validation within an epoch."""
    for split in splits:
        images, name = len(data.splits[split]), f"limit_{split}_batches"
        share = trainer.world_size if split != "train" else 1  # a training batch is shared among the devices
        batches, limit = math.ceil(images / (data.batch_size * share)), getattr(trainer, name)
        if isinstance(limit, float) and batches and int(batches * limit) == 0:
            raise ArgumentError(
                name, limit, f"it leaves none of {batches} batches; expected {1 / batches:.2g} or more."
            )
        used = int(batches * limit) if isinstance(limit, float) else min(batches, limit)
        interval = trainer.val_check_interval
        every_epoch = trainer.check_val_every_n_epoch is not None
        if split == "train" and isinstance(interval, int) and interval > used and every_epoch:
            raise ArgumentError("val_check_interval", interval, f"expected at most the {used} batches of an epoch.")


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
