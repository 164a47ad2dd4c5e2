"""Comparisons of gpu.py: what a device computes beside what the CPU computes, or the same device in another way.

All are on small drawings. Each function raises AssertionError if a difference is too large, else returns differences.
"""

import os
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from contenders.inputs import composed
from gpu_steps import Settings

from transfer_learning.cli.build import build, build_data
from transfer_learning.data.augmentation import Augmentation
from transfer_learning.data.augmentation.affine import Affine
from transfer_learning.data.augmentation.color_jitter import ColorJitter
from transfer_learning.data.augmentation.horizontal_flip import HorizontalFlip
from transfer_learning.data.augmentation.rand_augment import RandAugment
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.batch import features_from_rows
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.training import compile_network, frozen_part
from transfer_learning.optim.rmsprop import RMSprop
from transfer_learning.utilities.hardware import configure_process

# 88 training images in batches of 12: the last one has 4.
SMALL = ["data=cartoons", "data.image_size=64", "data.batch_size=12"]
SMALL += ["data.train_per_class=44", "data.val_per_class=10", "data.test_per_class=10"]
QUIET: dict[str, Any] = dict(
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
)
EPOCHS = 3
# Losses of an epoch are about 0.7 and fall by 0.01 or more. On a CPU, another number of threads, which rounds
# otherwise, changes them by at most 2e-5, bfloat16 by 2e-3, and another seed by 0.03 or more.
LOSS = 1e-3
RESNET = ["model=pretrained", "model.backbone=resnet18", "model.weights=null", "model.dropout=0"]


class Fit(NamedTuple):
    data: ImageDataModule
    model: Classifier
    trainer: pl.Trainer

    @property
    def losses(self) -> np.ndarray:
        """Of training and of validation in each epoch, (E, 2)."""
        return np.array([(row["train/loss"], row["val/loss"]) for row in self.model.history.rows])

    def difference(self, other: "Fit") -> float:
        """The largest difference of a weight."""
        pairs = zip(self.model.parameters(), other.model.parameters(), strict=True)
        return max((one.cpu() - two.cpu()).abs().max().item() for one, two in pairs)


def check(name: str, found: float, allowed: float) -> float:
    print(f"{name}: {found:.3g}, allowed are {allowed:.3g}", flush=True)
    assert found <= allowed, f"{name}: {found:.3g}, allowed are {allowed:.3g}"
    return found


def small_config(settings: Settings, *overrides: str):
    """The config that train.py would get, with small drawings."""
    return composed([*SMALL, f"data.cache_dir={settings.folder}/cache", *overrides])


def without_tf32() -> None:
    """By default, convolutions in float32 round their inputs to 10 bits on a GPU. Call it before CUDA starts."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


def prepared(settings: Settings, device: str, *overrides: str, **of_trainer: Any) -> Fit:
    """Data, model and trainer, as train.py builds them, on a device. Weights are the same on each device."""
    configure_process()
    cfg = small_config(settings, *overrides)
    data = build_data(cfg)
    data.setup()
    pl.seed_everything(cfg.seed, verbose=False)
    network = build(cfg, "model", num_classes=len(data.class_names), image_size=data.preprocessing.image_size)
    model = Classifier(
        network, data.class_names, data.preprocessing, build(cfg, "optimizer"), build(cfg, "scheduler"), seed=cfg.seed
    )
    of_trainer = dict(precision="32-true", max_epochs=EPOCHS, num_sanity_val_steps=0) | of_trainer
    accelerator = {"cuda": "gpu"}.get(device, device)
    clip = cfg.trainer.gradient_clip_val
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1,
        gradient_clip_val=clip,
        default_root_dir=settings.folder,
        **QUIET,
        **of_trainer,
    )
    return Fit(data, model, trainer)


def fitted(
    settings: Settings,
    device: str,
    *overrides: str,
    compiled: bool = False,
    from_files: bool = False,
    **of_trainer: Any,
) -> Fit:
    """As `prepared`, trained. `from_files`: the split does not move to the device."""
    fit = prepared(settings, device, *overrides, **of_trainer)
    if from_files:
        fit.data._device_for_all_splits = lambda: None
    if compiled:
        compile_network(fit.model.network, fit.trainer.strategy.root_device)
    fit.data.store_features(frozen_part(fit.model, fit.trainer, compiled), ("train", "val"))
    fit.trainer.fit(fit.model, datamodule=fit.data)
    assert len(fit.losses) == fit.trainer.max_epochs and np.isfinite(fit.losses).all(), f"losses: {fit.losses.tolist()}"
    return fit


def rmsprop(settings: Settings) -> dict:
    """30 steps on the device beside the formula in float64 on the CPU; weights of convolutions are channels-last.

    A float32 below 4 is rounded by at most 2.4e-7, 30 times; an update is below 0.032, so its rounding adds little.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (8, 3, 3, 3), (8, 4, 1, 1), (1, 3, 1, 1), (8,)]
    expected = [torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-3, 3) for shape in shapes]
    averages = [torch.zeros_like(each) for each in expected]
    weights = [each.float().to(settings.device) for each in expected]
    weights = [each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each for each in weights]
    optimizer = RMSprop([each.requires_grad_() for each in weights], lr=0.01, alpha=0.9, eps=1e-7)
    for _ in range(30):
        for weight, value, average in zip(weights, expected, averages):
            gradient = torch.randn(value.shape, generator=generator)
            weight.grad = gradient.to(settings.device)  # contiguous: the optimizer has to lay it out as the weight
            average.mul_(0.9).addcmul_(gradient.double(), gradient.double(), value=0.1)
            value.sub_(0.01 * gradient.double() / (average.sqrt() + 1e-7))
        optimizer.step()
    pairs = zip(weights, expected)
    found = max((weight.detach().cpu().double() - value).abs().max().item() for weight, value in pairs)
    return {"largest difference": check("a weight after 30 steps", found, 1e-5)}


def augmentation(settings: Settings) -> dict:
    """Each step on the device beside the CPU, with the same parameters, on noise of 96 pixels.

    Positions are within [-2, 2] and are rounded by some 2.4e-7, so by 5e-5 pixels, and noise changes by up to 1 from
    pixel to pixel; a few such operations one after the other stay below 1e-3.
    """
    found, generator = {}, np.random.default_rng(0)
    images = torch.from_numpy(generator.random((32, 3, 96, 96), dtype=np.float32))
    codes = torch.zeros(32, dtype=torch.int64)
    for step in (Affine(), HorizontalFlip(), ColorJitter(hue=0.1), RandAugment(), RandomResizedCrop(size=64)):
        parameters = [torch.from_numpy(each) for each in Augmentation([step]).sample(32, 0, 0)]
        expected, _ = Augmentation([step]).apply(images, codes, parameters)
        there = [each.to(settings.device) for each in (images, codes, *parameters)]
        result, _ = Augmentation([step]).apply(there[0], there[1], there[2:])
        name = type(step).__name__
        found[name] = check(f"a pixel of {name}", (result.cpu() - expected).abs().max().item(), 1e-3)
    return found


def features(settings: Settings) -> dict:
    """VGG16's stored features with random weights: the device in three precisions beside the CPU in float32.

    Relative to the norm. A rounding changes a number by about 2e-4 in TF32 (float32 on a GPU) and in float16, by 1.6e-3
    in bfloat16. Three of them in each of 13 layers, independent of each other, make √39 times as much; allowed is four
    times that.
    """
    allowed, found = {"32-true": 5e-3, "16-mixed": 5e-3, "bf16-mixed": 4e-2}, {}

    def stored(device: str, precision: str) -> torch.Tensor:
        fit = prepared(settings, device, "model=vgg16_frozen", "model.weights=null", precision=precision)
        fit.data.store_features(frozen_part(fit.model, fit.trainer), ["train"])
        array, rows = fit.data.features["train"]
        return features_from_rows(torch.from_numpy(np.array(array[rows[0]]))).float()

    expected = stored("cpu", "32-true")
    for precision, limit in allowed.items():
        if precision == "16-mixed" and settings.device == "cpu":
            continue  # Lightning computes bfloat16 there
        difference = (stored(settings.device, precision) - expected).norm() / expected.norm()
        found[precision] = check(f"features in {precision}", difference.item(), limit)
    return found


def resident(settings: Settings) -> dict:
    """All batches of an epoch from a split on the device beside memory-mapped ones: images, augmented, views.

    Both are prepared on the device. They are equal, since indexing copies bytes.
    """
    compared = 0
    for overrides in (["model=basic_cnn"], ["model=basic_cnn", "data.augment=true"], RESNET,
                      [*RESNET, "data.augment=true", "data.views=4"]):  # fmt: skip
        epochs = []
        for device in (torch.device(settings.device), None):
            data, model, trainer = prepared(settings, settings.device, *overrides)
            data.trainer = trainer
            data._device_for_all_splits = lambda device=device: device
            data.store_features(frozen_part(model.to(settings.device), trainer), ["train"])
            batches = [batch._replace(inputs=batch.inputs.to(settings.device)) for batch in data.train_dataloader()]
            parameters = [tuple(each.to(settings.device) for each in batch.parameters) for batch in batches]
            batches = [batch._replace(parameters=given) for batch, given in zip(batches, parameters)]
            epochs.append([data.on_after_batch_transfer(batch) for batch in batches])
        for one, two in zip(*epochs, strict=True):
            assert torch.equal(one.inputs, two.inputs), f"{overrides}: inputs differ"
            assert torch.equal(one.targets.cpu(), two.targets.cpu()), f"{overrides}: targets differ"
            compared += 1
    return {"equal batches": compared}
