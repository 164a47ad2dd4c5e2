"""Fits of gpu.py: small trainings on a device beside the same on the CPU, or on the device in another way.

Each function raises AssertionError if a difference is too large, else returns differences.
"""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from gpu_checks import LOSS, RESNET, check, fitted, without_tf32
from gpu_steps import Settings
from torch._dynamo.utils import counters

from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.utilities.hardware import default_precision

BASIC = ["model=basic_cnn", "optimizer.lr=1e-4"]


class Waiting(pl.Callback):
    """Raises if a training step waits for the device, and counts what waits between steps, by its message."""

    def __init__(self) -> None:
        self.between: Counter = Counter()

    def on_train_start(self, trainer, model) -> None:
        self.caught = warnings.catch_warnings(record=True)
        self.messages = self.caught.__enter__()
        warnings.simplefilter("always")

    def on_train_batch_start(self, trainer, model, batch, index) -> None:
        torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, model, outputs, batch, index) -> None:
        torch.cuda.set_sync_debug_mode("warn")

    def on_train_end(self, trainer, model) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self.caught.__exit__(None, None, None)
        self.between.update(Path(each.filename).name for each in self.messages if "synchronizing" in str(each.message))


def no_waiting(settings: Settings) -> dict:
    """Three epochs of system 1 in its default precision; nothing waits from the start to the end of a batch."""
    waiting = Waiting()
    fitted(settings, settings.device, "model=basic_cnn", callbacks=[waiting], precision=default_precision("gpu"))
    return {"between steps": ", ".join(f"{name} {count}" for name, count in waiting.between.items()) or "none"}


def beside_cpu(settings: Settings, recipes: dict[str, list[str]]) -> dict:
    """The largest difference of an epoch's loss for each recipe: the device beside the CPU, in float32, no dropout."""
    without_tf32()
    found = {}
    for name, overrides in recipes.items():
        losses = [fitted(settings, device, *overrides).losses for device in (settings.device, "cpu")]
        found[name] = check(f"a loss, {name}", np.abs(losses[0] - losses[1]).max(), LOSS)
    return found


def fits(settings: Settings) -> dict:
    """The basic CNN, plain and augmented, and a head on a frozen ResNet-18, alone and with four stored views."""
    return beside_cpu(
        settings,
        {
            "basic CNN": BASIC,
            "augmented": [*BASIC, "data.augment=true"],
            "frozen": RESNET,
            "four views": [*RESNET, "data.augment=true", "data.views=4"],
        },
    )


def other_fits(settings: Settings) -> dict:
    """Fine-tuning with AdamW and a cosine schedule, and clipped gradients, beside the CPU.

    In 16-mixed, which only CUDA has, the loss of training falls, with RMSprop and with AdamW.
    """
    tuned = [*RESNET, "model.unfreeze=block5", "model.unfreeze_at_epoch=1", "optimizer=adamw", "scheduler=cosine"]
    found = beside_cpu(settings, {"fine-tuned": tuned, "clipped": [*BASIC, "trainer.gradient_clip_val=0.1"]})
    for optimizer in ("rmsprop", "adamw") if settings.device == "cuda" else ():
        overrides = ["model=basic_cnn", f"optimizer={optimizer}", "optimizer.lr=1e-4"]
        losses = fitted(settings, settings.device, *overrides, precision="16-mixed", max_epochs=8).losses[:, 0]
        found[f"16-mixed, {optimizer}: last loss / first"] = check(optimizer, losses[-1] / losses[0], 0.95)
    return found


def deterministic(settings: Settings) -> dict:
    """Two fits on the device with deterministic=True have equal weights: of two classes, and of three."""
    root = Path(settings.folder, "three classes")
    for number in range(90):
        name, drawing = ("cat", "dog", "upside-down")[number % 3], cartoon(number % 2, f"drawing {number}")
        file = root / name / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        (drawing.rotate(180) if name == "upside-down" else drawing).resize((80, 80)).save(file)
    three = ["data=image_folder", f"data.root={root}", "data/split=per_class", "data.train_per_class=20"]
    three += ["data.val_per_class=5", "data.test_per_class=5"]
    for overrides in (["data.augment=true"], three):
        one, two = (
            fitted(settings, settings.device, "model=regularised_cnn", *overrides, deterministic=True) for _ in range(2)
        )
        check(f"a weight, classes: {len(one.data.class_names)}", one.difference(two), 0)
    return {"largest difference": 0.0}


def compiled(settings: Settings) -> dict:
    """A compiled fit of a partly frozen ResNet-18, augmented, beside the same fit that is not; counts its graphs."""
    without_tf32()
    torch._logging.set_logs(recompiles=True)
    overrides = [*RESNET, "model.unfreeze=block5", "model.unfreeze_at_epoch=0", "data.augment=true"]
    plain = fitted(settings, settings.device, *overrides)
    fast = fitted(settings, settings.device, *overrides, compiled=True)
    graphs = counters["stats"]["unique_graphs"]
    assert graphs, "nothing was compiled"
    return {"loss": check("a loss", np.abs(plain.losses - fast.losses).max(), LOSS), "graphs": graphs}


def pinned(settings: Settings) -> dict:
    """Weights after a fit from pinned memory are those after a fit from the split on the device, to the bit."""
    overrides = ["model=regularised_cnn", "data.augment=true"]
    resident, mapped = (
        fitted(settings, settings.device, *overrides, from_files=from_files, deterministic=True)
        for from_files in (False, True)
    )
    assert resident.trainer.train_dataloader.dataset.device is not None
    assert next(iter(mapped.trainer.train_dataloader)).inputs.is_pinned()
    return {"largest difference": check("a weight", resident.difference(mapped), 0)}


def ddp(settings: Settings) -> dict:
    """A fit with strategy=ddp on one device beside one without, deterministic: losses agree but for rounding."""
    alone, one = (
        fitted(settings, settings.device, *BASIC, "data.augment=true", deterministic=True, strategy=strategy)
        for strategy in ("auto", "ddp")
    )
    return {"loss": check("a loss", np.abs(alone.losses - one.losses).max(), 1e-4)}
