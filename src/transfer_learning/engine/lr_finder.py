"""The learning-rate finder: one short training in which the learning rate rises (Smith 2017, "range test")."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner import Tuner
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.batch import Batch
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.checks import check_steps
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import frozen_part, keeps_generator, prepare
from transfer_learning.reporting.lr_curve import LearningRateCurve, write_lr_curve
from transfer_learning.utilities.errors import ArgumentError, UserError

FEWEST = 20  # steps; from fewer, a curve tells nothing


@keeps_generator
def find_learning_rate(
    data: ImageDataModule,
    model: Classifier,
    trainer: pl.Trainer,
    min_lr: float = 1e-6,
    max_lr: float = 1.0,
    steps: int = 200,
) -> LearningRateCurve:
    """Trains for some steps while the learning rate rises exponentially, and suggests one for the optimizer.

    Lightning's finder does this, and restores the weights. Its suggestion is not used: it is the largest fall of the
    loss per learning rate, not per decade, and so mostly the noise at the smallest rates (see `suggestion`). The
    loggers and callbacks of the trainer take no part, and neither does the model's schedule. Groups of parameters keep
    their scales of the learning rate; those that learn from a later epoch on do not learn here.

    Writes `lr_find.png` and `lr_find.json` to `trainer.default_root_dir`. The trainer and the model can be used for the
    training afterwards.

    Args:
        min_lr, max_lr: the first and about the last learning rate; a loss that explodes ends the search earlier.
        steps: of the optimizer, at least 20.

    Returns:
        The curve, with a suggestion for the optimizer's learning rate, which is that of the head if other parameters
        have a fraction of it.

    Raises:
        UserError: a range or a number of steps that is not possible; a loss that explodes at once; as `check_steps` and
            `prepare`.
    """
    for name, value, valid, expected in (
        ("min_lr", min_lr, 0 < min_lr < max_lr, f"expected more than 0 and less than max_lr={max_lr}."),
        ("steps", steps, steps >= FEWEST, f"expected {FEWEST} or more."),
        ("fast_dev_run", trainer.fast_dev_run, not trainer.fast_dev_run, "Lightning's finder needs more batches."),  # type: ignore[attr-defined]
    ):
        if not valid:
            raise ArgumentError(name, value, expected)
    check_steps(data, model, trainer, ["train"])
    prepare(data, model, trainer, ["train"])
    data.store_features(frozen_part(model, trainer), ["train"])
    test = _RangeTest(model)
    try:
        with _only_steps(trainer):
            Tuner(trainer).lr_find(
                test, datamodule=data, min_lr=min_lr, max_lr=max_lr, num_training=steps, update_attr=False
            )
    finally:
        data.store_features(None)
    if len(test.losses) < FEWEST:
        where = f"the loss explodes within {len(test.losses)} steps, at a learning rate of {test.rates[-1]:.1e}"
        raise UserError(f"{where}: no suggestion is possible; try a smaller min_lr, or another model.")
    curve = LearningRateCurve(test.rates, test.losses)
    if trainer.is_global_zero:
        write_lr_curve(trainer.default_root_dir, curve)
    rank_zero_info(str(curve))
    return curve


class _RangeTest(Classifier):
    """The training steps of `model`, whose network it shares, with their learning rates and losses."""

    def __init__(self, model: Classifier):
        weights = None if model.class_weights is None else model.class_weights.tolist()
        settings: dict[str, Any] = dict(objective=model.objective, seed=model.seed, class_weights=weights)
        super().__init__(model.network, model.class_names, model.preprocessing, model.optimizer, **settings)
        self.rates, self.losses = list[float](), list[float]()
        self._batches: list[tuple[torch.Tensor, int]] = []  # of the current step: mean loss, images

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_index)
        self._batches.append((loss.detach(), len(batch.targets)))
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lightning has set the same learning rate for all groups."""
        self.rates.append(optimizer.param_groups[0]["lr"])
        groups = [group for group in self.network.parameter_groups() if group.parameters]
        for group, settings in zip(groups, optimizer.param_groups):
            settings["lr"] *= 0.0 if group.from_epoch else group.lr_scale
        mean = sum(loss * images for loss, images in self._batches) / sum(images for _, images in self._batches)
        self.losses.append(float(self.trainer.strategy.reduce(mean, reduce_op="mean")))
        self._batches.clear()
        self.trainer.should_stop |= not math.isfinite(self.losses[-1])

    def _check_finite(self) -> None:
        """The search ends where the loss explodes."""


@contextmanager
def _only_steps(trainer: pl.Trainer) -> Iterator[None]:
    """Within the block, the trainer takes steps without an end, and does nothing else."""
    loop: Any = trainer.fit_loop
    before: Any = trainer.callbacks, trainer.loggers, trainer.check_val_every_n_epoch, loop.max_epochs  # type: ignore[attr-defined]
    trainer.callbacks, trainer.loggers = [], []  # type: ignore[attr-defined]
    trainer.check_val_every_n_epoch, loop.max_epochs = 10**9, -1
    try:
        yield
    finally:
        trainer.callbacks, trainer.loggers, trainer.check_val_every_n_epoch, loop.max_epochs = before  # type: ignore[attr-defined]
