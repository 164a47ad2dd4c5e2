"""Figures for the loggers: augmented images, and feature maps of the frozen part."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure

from transfer_learning.callbacks.loggers import adapters
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.models.network import Network
from transfer_learning.reporting.figures import rendered

VERSIONS = 5  # augmented versions, as in the tutorial
CHANNELS = 8  # channels of the feature map: those with the largest mean
CHARTS = {"accuracy": ["acc"], "loss": ["loss"]}  # of the runs `train` and `val`


class Pictures(pl.Callback):
    """Shows the figures and charts before the first epoch, augmented images where images are augmented."""

    def on_fit_start(self, trainer: Any, model: Any) -> None:
        if shown := adapters(trainer):
            data = trainer.datamodule
            augmented = augmented_images(data) if data.augment else None
            figures = {"augmentation": augmented, "frozen features": feature_maps(data, model.network)}
            for adapter in shown:
                adapter.charts(CHARTS)
                for name, figure in figures.items():
                    if figure:
                        adapter.image(name, rendered(figure))


def augmented_images(data: ImageDataModule) -> Figure:
    """The first training image and augmented versions of it, each with its label."""
    (pixels, label), train = _first_training_image(data), data.splits["train"]
    count = min(VERSIONS, len(train))
    # A step may mix an image with the one before it in the batch, so another training image precedes each.
    pairs = np.stack([np.roll(train, -1)[:count], np.repeat(train[0], count)], axis=1).ravel()
    images = torch.from_numpy(data.pixels[pairs]).permute(0, 3, 1, 2).contiguous() / 255
    sampled = [torch.from_numpy(step[:count]) for step in data.augmentation_parameters(epoch=0)]
    parameters = [step.repeat_interleave(2, dim=0) for step in sampled]
    versions, _ = data.augmentation.apply(images, torch.from_numpy(data.labels[pairs]), parameters)
    titles = [f"{label}, as it is", *[f"{label}, augmented"] * count]
    return _grid([pixels / 255, *versions[1::2].permute(0, 2, 3, 1).numpy()], titles)


def feature_maps(data: ImageDataModule, network: Network) -> Figure | None:
    """The first training image and channels of its last frozen map, (C, h, w); None if the frozen part has no maps."""
    pixels, label = _first_training_image(data)
    like = next(network.parameters())
    maps, x = None, (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255).to(like.device, like.dtype)
    with torch.no_grad():
        for index, layer in enumerate(network.frozen):
            x = layer(x)
            if index and x.ndim == 4 and x.shape[2] == x.shape[3] > 1:  # no normalization, not pooled, no (1, h, w, C)
                maps = x[0].float().cpu().numpy()
    if maps is None:
        return None
    strongest = np.argsort(-maps.mean(axis=(1, 2)))[:CHANNELS]
    return _grid([pixels, *maps[strongest]], [label, *(f"channel {channel}" for channel in strongest)])


def _first_training_image(data: ImageDataModule) -> tuple[np.ndarray, str]:
    """Pixels, (H, W, 3) uint8, and class name."""
    index = data.splits["train"][0]
    return np.array(data.pixels[index]), data.class_names[data.labels[index]]


def _grid(images: Sequence, titles: Sequence[str], columns: int = 3) -> Figure:
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(2 * columns, 2.2 * rows), layout="constrained")
    for number, (image, title) in enumerate(zip(images, titles), 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(image)
        axes.set_title(title, parse_math=False)
        axes.set_axis_off()
    return figure
