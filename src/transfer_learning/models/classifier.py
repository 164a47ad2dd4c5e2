"""The LightningModule: a network, its loss, its metrics and its optimiser."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics import MeanMetric

from transfer_learning.data.batch import Batch
from transfer_learning.errors import UserError
from transfer_learning.models.network import Network

FROZEN = "network.frozen."  # how the keys of frozen weights begin
Optimizer = Callable[[list[dict]], torch.optim.Optimizer]


class Classifier(pl.LightningModule):
    """Binary cross-entropy on one logit for two classes, cross-entropy on C logits for more.

    Logs over epochs: `train/loss`, `train/acc` (means over the epoch's images, as Keras reports them), `val/…`, `test/…`, and
    of its last step `lr`, of the head, and `lr_pretrained`, of the blocks that learn too.

    Args:
        network: images (N, 3, H, W) float in [0, 1] -> logits (N, 1) or (N, C).
        class_names: C names, in the order of the codes.
        image_size: side of the images in pixels.
        optimizer: parameter groups -> optimiser; None for a model that only predicts.
        schedule: progress of the fit in [0, 1] -> factor of the learning rate (`schedule.py`), for each step; None leaves it as it is.
        seed: of the dropout, which is a function of (seed, epoch, batch, device).

    Raises:
        UserError: images that are not as `forward` says; from a fit, no optimiser or one that refuses its arguments.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        image_size: int,
        optimizer: Optimizer | None = None,
        schedule: Callable[[float], float] | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # the layout in which batches arrive
        self.class_names = tuple(class_names)
        self.image_size = image_size
        self.optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.rates: dict[str, float] = {}  # of the last step
        # Means over the images of all batches and devices. "disable": a loss that is not a number must show, not be dropped, and looking
        # for one would wait for the device at every step. (torchmetrics ignores `weight` then, so each image is a value of its own.)
        self.means = nn.ModuleDict(
            {f"{part}_{name}": MeanMetric("disable") for part in ("train", "val", "test") for name in ("loss", "acc")}
        )
        # Whether all losses of the epoch have been finite, and in how many steps: kept on the device, for the same reason.
        self.register_buffer("finite", torch.tensor(True), persistent=False)
        self.register_buffer("finite_steps", torch.tensor(0), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, image_size, image_size) float in [0, 1] -> probabilities (N, C)."""
        if images.shape[1:] != (3, self.image_size, self.image_size) or not images.is_floating_point():
            expected = f"(N, 3, {self.image_size}, {self.image_size}) float in [0, 1]"
            raise UserError(f"images are {tuple(images.shape)} {images.dtype}, expected {expected}.")
        logits = self.network(images.to(self.dtype)).float()
        if logits.shape[1] == 1:
            return torch.cat([-logits, logits], dim=1).sigmoid()
        return logits.softmax(dim=1)

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        return self._step(batch, batch_index, "train")

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._step(batch, batch_index, "val")

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._step(batch, batch_index, "test")

    def _step(self, batch: Batch, batch_index: int, part: str) -> torch.Tensor:
        x = batch.x if batch.encoded else self.network.frozen(batch.x.to(self.dtype))
        logits = self.network.trainable(x).float()
        if logits.shape[1] == 1:
            losses = F.binary_cross_entropy_with_logits(logits[:, 0], batch.labels.float(), reduction="none")
            predicted = logits[:, 0] > 0
        else:
            losses = F.cross_entropy(logits, batch.labels, reduction="none")
            predicted = logits.argmax(dim=1)
        for name, values in {"loss": losses.detach(), "acc": predicted == batch.labels}.items():  # (N,) each
            mean = self.means[f"{part}_{name}"]
            mean.update(values)
            if batch_index == 0:  # once an epoch: Lightning then asks the mean for its value, at the epoch's end
                self.log(f"{part}/{name}", mean, on_step=False, on_epoch=True, batch_size=len(values))
        loss = losses.mean()
        if part != "test":
            self.finite &= loss.detach().isfinite()
            self.finite_steps += self.finite & (part == "train")
        return loss

    def on_train_epoch_start(self) -> None:
        self.finite.fill_(True)
        self.finite_steps.zero_()

    def _refuse_what_diverged(self) -> None:
        """At the end of an epoch's training and validation, before anything of it is saved."""
        if not self.finite:
            step, steps = int(self.finite_steps) + 1, self.trainer.num_training_batches
            where = f"step {step}" if step <= steps else "in validation"
            raise UserError(
                f"epoch {self.current_epoch + 1}, {where}: the loss is not finite. Checkpoints are those of the epochs before; "
                "try a lower optimizer.lr."
            )

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        words = np.random.SeedSequence((self.seed, self.current_epoch, batch_index, self.global_rank)).generate_state(2)
        seed = int(words[0]) << 32 | int(words[1])
        # torch.manual_seed seeds GPUs too: where none is used it would note that down, with a stack trace, at every step.
        (torch.default_generator if self.device.type == "cpu" else torch).manual_seed(seed)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.rates = dict(zip(("lr", "lr_pretrained"), (group["lr"] for group in optimizer.param_groups)))

    def on_train_epoch_end(self) -> None:
        self._refuse_what_diverged()
        for name, rate in self.rates.items():
            self.log(name, rate, sync_dist=True)
        self._log_x_axis(self.current_epoch + 1)

    def on_validation_epoch_end(self) -> None:
        self._refuse_what_diverged()
        self._log_x_axis(self.current_epoch + 1)

    def on_test_epoch_end(self) -> None:
        self._log_x_axis(self.current_epoch)  # the fit is over: this is how many epochs it had

    def _log_x_axis(self, epochs: int) -> None:
        self.log(
            "step", float(epochs), sync_dist=True
        )  # Lightning takes this value as the step: curves over epochs, not over batches

    def configure_optimizers(self) -> dict:
        """One group of parameters, or two with rates of their own: the head's, and the pretrained blocks' that wait for it."""
        if self.optimizer is None:
            raise UserError("this Classifier was built without an optimizer, so it predicts but does not train.")
        groups = [{"params": parameters} for parameters in self.network.parameter_groups() if parameters]
        try:
            optimizer = self.optimizer(groups)
        except (TypeError, ValueError) as error:  # torch checks its own arguments
            raise UserError(f"optimizer: {error}") from error
        if not self.schedule and len(groups) == 1:
            return {"optimizer": optimizer}
        steps, waiting = max(1, self.trainer.estimated_stepping_batches), 0
        if self.schedule and math.isinf(steps):
            raise UserError(
                "scheduler: it ends with the fit, so trainer.max_epochs or max_steps must say when that is."
            )
        if len(groups) > 1 and self.network.head_epochs:
            self.trainer.fit_loop.setup_data()  # it knows the batches of an epoch
            waiting = self.network.head_epochs * math.ceil(
                self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            )
            if waiting >= steps:
                raise UserError(
                    f"model.head_epochs={self.network.head_epochs}: the fit is no longer, so unfrozen blocks would never learn."
                )

        def factor(step: int) -> float:
            return self.schedule((step + 0.5) / steps) if self.schedule else 1.0

        def pretrained_factor(step: int) -> float:
            return factor(step) * self.network.lr_share if step >= waiting else 0.0

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [factor, pretrained_factor][: len(groups)])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Adds the plain values from which `checkpoint.load` rebuilds the model; leaves out frozen weights that can be had elsewhere."""
        source = self.network.frozen_source
        checkpoint["model"] = {
            "network": type(self.network).__name__,
            "arguments": self.network.arguments,
            "class_names": list(self.class_names),
            "image_size": self.image_size,
            "frozen_weights": source and {"name": source.name, "sha256": source.sha256},
        }
        if source:
            checkpoint["state_dict"] = {
                key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(FROZEN)
            }

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Puts the frozen weights that this model has where they were left out, so that loading stays strict.

        Raises UserError where those are not the ones that it was trained on, or the rest is another network's.
        """
        own, saved, source = self.state_dict(), checkpoint["state_dict"], self.network.frozen_source
        if source:
            if source.sha256 != (checkpoint["model"]["frozen_weights"] or {}).get("sha256"):
                raise UserError(
                    f"model.weights={source.name}: not the weights that the checkpoint was trained on; put those back."
                )
            saved |= {key: value for key, value in own.items() if key.startswith(FROZEN)}
        shapes, expected = ({key: tuple(value.shape) for key, value in state.items()} for state in (saved, own))
        if shapes != expected:
            key = next(key for key in [*expected, *shapes] if shapes.get(key) != expected.get(key))
            raise UserError(
                f"the checkpoint is another network's: its {key} is {shapes.get(key)}, expected {expected.get(key)}."
            )
