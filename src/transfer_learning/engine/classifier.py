"""The LightningModule: a network with its objective, metrics and optimizer."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import NonNegativeFloat

from transfer_learning.callbacks.ema import with_averages
from transfer_learning.callbacks.history import History
from transfer_learning.data.batch import Batch
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.engine.batch_norm import share_running_statistics
from transfer_learning.engine.finite import FiniteLosses
from transfer_learning.engine.inference import Input, Predicted, Tta, predict
from transfer_learning.engine.metrics import MetricFactory, Metrics
from transfer_learning.engine.objective import CrossEntropy
from transfer_learning.engine.predictions import Predictions
from transfer_learning.models.network import Network, checked_logits
from transfer_learning.optim.accumulation import batch_weight
from transfer_learning.optim.schedules import GroupSchedule, Schedule, optimizer_groups
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.hardware import memory_format, seed_generators
from transfer_learning.utilities.validation import Seed, validated

Optimizer = Callable[[list[dict]], torch.optim.Optimizer]


@validated
class Classifier(pl.LightningModule):
    """Trains and evaluates a network.

    Logs for each epoch `train/loss`, `train/acc` (means over images; in training over the outputs of the steps, as in
    Keras), `val/...`, `test/...`, further metrics, and learning rates of the last step: `lr`, and `lr_NAME` of other
    parameter groups than the first. `predictions["val"]` and `["test"]` are those of the last evaluation, `history` has
    the epochs of the last fit. `checkpoint.load` and `train` set `trained_precision`. `checkpoint.load` sets the
    `temperature` of a calibration: `forward`, `probabilities` and `predict` divide logits by it, the steps do not.

    Args:
        network: images (N, 3, H, W) float in [0, 1] -> logits (N, 1) or (N, C).
        class_names: C names, in the order of the codes.
        preprocessing: how images became pixels; checkpoints hold it.
        optimizer: parameter groups -> optimizer; None for a model that only predicts.
        schedule: progress of the fit in [0, 1] -> factor of the learning rate, at each step; None is constant.
        objective: the loss, and the meaning of logits; None is `CrossEntropy()`.
        metrics: further metrics by name, such as `{"macro_f1": partial(MulticlassF1Score, average="macro")}`.
        seed: of dropout, which is a function of (seed, epoch, batch, device).
        class_weights: C factors of the losses of training images, which `train/loss` has too; None is 1 for each class.
    """

    class_weights: torch.Tensor | None  # (C,) float32; in `bf16-true` and `16-true` of 16 bits

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        objective: CrossEntropy | None = None,
        metrics: Mapping[str, MetricFactory] | None = None,
        seed: Seed = 0,
        class_weights: Sequence[NonNegativeFloat] | None = None,
    ):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # see `setup`
        self.class_names, self.preprocessing = tuple(class_names), preprocessing
        self.optimizer, self.schedule, self.seed = optimizer, schedule, seed
        self.objective, self.metrics = objective or CrossEntropy(), Metrics(metrics or {}, len(class_names))
        self.history, self.predictions, self.learning_rates = History(), dict[str, Predictions](), dict[str, float]()
        self.trained_precision, self.temperature = "", 1.0
        self._evaluated: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.own_class_weights = class_weights
        self.set_class_weights(class_weights)

    def set_class_weights(self, weights: Sequence[float] | None) -> None:
        """C factors of the losses of training images. Raises ArgumentError for another number of them."""
        if weights is not None and len(weights) != len(self.class_names):
            expected = f"expected {len(self.class_names)} numbers, one for each class."
            raise ArgumentError("class_weights", weights, expected)
        tensor = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=self.device)
        self.register_buffer("class_weights", tensor, persistent=False)

    def setup(self, stage: str) -> None:
        self.network.to(memory_format=memory_format(self.device))  # that of the batches
        self.finite = FiniteLosses(self.device)

    def configure_callbacks(self) -> list[pl.Callback]:
        callbacks: list = self.trainer.callbacks  # type: ignore[attr-defined]
        return [] if self.history in callbacks else [self.history]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, image_size, image_size) float in [0, 1] -> probabilities (N, C). Raises UserError."""
        return self.probabilities(self.logits(images))

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits (N, 1) or (N, C) -> probabilities (N, C), calibrated if the model has a temperature."""
        return self.objective.probabilities(logits / self.temperature)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, image_size, image_size) float in [0, 1] -> logits (N, 1) or (N, C). Raises UserError."""
        size = self.preprocessing.image_size
        if images.shape[1:] != (3, size, size) or not images.is_floating_point():
            found = f"images are {tuple(images.shape)} {images.dtype}"
            raise UserError(f"{found}, expected (N, 3, {size}, {size}) float in [0, 1].")
        return self.network(images.to(self.dtype)).float()

    def predict(self, images: Iterable[Input] | Input, accelerator: str = "auto", tta: Tta = None) -> Predicted:
        """Classifies files, opened images of Pillow's, or pixels (H, W, 3) uint8, of any size: see `inference`."""
        return predict([self], images, accelerator, tta)

    def logged_metrics(self) -> list[str]:
        """The keys of training and validation metrics."""
        return [*self.metrics.of("train"), *self.metrics.of("val")]

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        return self._step(batch, batch_index, "train")

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._step(batch, batch_index, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._step(batch, batch_index, "test")

    def _step(self, batch: Batch, batch_index: int, split: str) -> torch.Tensor:
        features = batch.inputs if batch.is_features else self.network.frozen(batch.inputs.to(self.dtype))
        logits = checked_logits(self.network.trainable(features).float(), len(self.class_names))
        if split == "train":
            losses = self.objective.training_losses(logits, batch.targets, class_weights=self.class_weights)
        else:
            losses = self.objective.losses(logits, batch.targets)
        self._record(batch, batch_index, split, logits.detach(), losses.detach())
        loss = losses.mean()
        if split != "test":
            self.finite.add(loss.detach(), split == "train")
        return loss

    def _record(self, batch: Batch, index: int, split: str, logits: torch.Tensor, losses: torch.Tensor) -> None:
        codes = batch.targets.argmax(dim=1) if batch.targets.ndim == 2 else batch.targets
        correct = self.objective.predicted(logits) == codes
        self.metrics.add_batch(split, losses, correct, lambda: self.objective.probabilities(logits), codes)
        if index == 0:  # once per epoch: Lightning computes a logged metric at its end
            for key, metric in self.metrics.of(split).items():
                self.log(key, metric, on_step=False, on_epoch=True, batch_size=len(losses))
        if split != "train":
            self._evaluated.append((batch.indices, logits, codes))

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Seeds dropout."""
        key = (self.seed, self.current_epoch, batch_index, self.global_rank)
        high, low = (int(word) for word in np.random.SeedSequence(key).generate_state(2))
        seed_generators(self.device, high << 32 | low)

    def backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        """A step of several batches has the mean gradient over all of their images."""
        trainer, window = self.trainer, self.trainer.accumulate_grad_batches
        if window > 1:
            loader: Any = trainer.train_dataloader
            of_epoch = int(trainer.num_training_batches), loader.batch_size, len(loader.sampler)
            loss = loss * batch_weight(trainer.fit_loop.batch_idx, window, *of_epoch)
        super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.learning_rates = dict(zip(self._rate_names, (group["lr"] for group in optimizer.param_groups)))

    def on_train_epoch_start(self) -> None:
        self.finite = FiniteLosses(self.device)
        self.metrics.reset("train")

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        self.log_dict(self.learning_rates, sync_dist=True)
        # Lightning uses "step" as the x axis: curves over epochs.
        self.log("step", float(self.current_epoch + 1), sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self._start_evaluation("val")

    def on_test_epoch_start(self) -> None:
        self._start_evaluation("test")

    def _start_evaluation(self, split: str) -> None:
        share_running_statistics(self.network.trainable, self.trainer)
        self.metrics.reset(split)
        self._evaluated.clear()

    def on_validation_epoch_end(self) -> None:
        self._check_finite()
        self._gather_predictions("val")

    def on_test_epoch_end(self) -> None:
        self._gather_predictions("test")

    def _gather_predictions(self, split: str) -> None:
        self.predictions[split] = Predictions.gather(self._evaluated)
        self._evaluated.clear()
        self.log("step", float(self.current_epoch + (split == "val")), sync_dist=True)  # a test comes after the fit

    def _check_finite(self) -> None:
        """After an epoch's training and its validation, before a checkpoint of it is written."""
        self.finite.check(self.trainer)

    def configure_optimizers(self) -> Any:
        """The optimizer, and the scheduler if the learning rate changes or groups differ in it."""
        if self.optimizer is None:
            raise UserError("this Classifier was built without an optimizer, so it predicts but does not train.")
        groups = [group for group in self.network.parameter_groups() if group.parameters]
        self._rate_names = ["lr", *(f"lr_{group.name}" for group in groups[1:])]
        optimizer = self.optimizer(optimizer_groups(groups))
        if not self.schedule and all(group.lr_scale == 1 and not group.from_epoch for group in groups):
            return {"optimizer": optimizer}
        steps = max(1, self.trainer.estimated_stepping_batches)
        self.trainer.fit_loop.setup_data()  # it knows the batches of an epoch
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        scheduler = GroupSchedule(optimizer, groups, self.schedule, steps, steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds what `checkpoint.load` needs, as plain values; leaves out frozen weights that have a source."""
        network, source = self.network, self.network.frozen_source
        checkpoint["model"] = {
            "network": {"module": type(network).__module__, "class": type(network).__qualname__},
            "arguments": network.arguments,
            "class_names": list(self.class_names),
            "preprocessing": asdict(self.preprocessing),
            "precision": str(self.trainer.precision),
            "frozen_weights": asdict(source) if source else None,
        }
        state, left_out = with_averages(self.trainer, checkpoint["state_dict"]), network.keys_of_source()
        checkpoint["state_dict"] = {key: state[key] for key in state if key.removeprefix("network.") not in left_out}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Adds this model's frozen weights if the checkpoint has none, so that loading stays strict.

        Raises UserError if they are not those of the training, or if the checkpoint is of another network.
        """
        own, saved, source = self.state_dict(), checkpoint["state_dict"], self.network.frozen_source
        if source:
            if source.sha256 != (checkpoint["model"]["frozen_weights"] or {}).get("sha256"):
                raise ArgumentError("weights", source.name, "not the weights of the training; restore those.")
            saved |= {f"network.{key}": own[f"network.{key}"] for key in self.network.keys_of_source()}
        shapes, expected = ({key: tuple(value.shape) for key, value in state.items()} for state in (saved, own))
        if shapes != expected:
            key = next(key for key in [*expected, *shapes] if shapes.get(key) != expected.get(key))
            found = f"its {key} is {shapes.get(key)}, expected {expected.get(key)}"
            raise UserError(f"the checkpoint is of another network: {found}.")
