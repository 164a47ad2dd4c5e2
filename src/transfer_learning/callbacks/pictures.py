"""What TensorBoard shows beside the curves: shared charts, augmented images, the frozen part's features."""

from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from transfer_learning.data.augment import augment
from transfer_learning.data.module import ImageData
from transfer_learning.models.classifier import Classifier

VERSIONS = 5  # augmented versions shown, as in the tutorial
COLUMNS = 3
CHANNELS = 8  # channels of the feature map shown: those that respond most


class Pictures(pl.Callback):
    """Draws them once, before the first epoch, where a run logs to TensorBoard."""

    @rank_zero_only
    def on_fit_start(self, trainer: pl.Trainer, model: Classifier) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                writer, data = logger.experiment, trainer.datamodule
                charts = {
                    name: ["Multiline", [f"^train/{key}$", f"^val/{key}$"]]
                    for name, key in (("accuracy", "acc"), ("loss", "loss"))
                }
                writer.add_custom_scalars({"training and validation": charts})
                writer.add_figure("augmentation", augmented(data))
                if figure := features(data, model):
                    writer.add_figure("frozen features", figure)


def augmented(data: ImageData) -> Figure:
    """The first training image as it is and its augmented versions, each with its label."""
    row = data.parts["train"][0]
    image = torch.from_numpy(np.array(data.pixels[row])).permute(2, 0, 1) / 255
    draws = torch.from_numpy(data.draws(epoch=0)[:VERSIONS])
    versions = augment(image.repeat(len(draws), 1, 1, 1), draws)
    label = data.class_names[data.labels[row]]
    titles = [f"{label}, as it is", *[f"{label}, augmented"] * VERSIONS]
    return _grid([image.permute(1, 2, 0).numpy(), *versions.permute(0, 2, 3, 1).numpy()], titles)


def features(data: ImageData, model: Classifier) -> Figure | None:
    """The first training image and the channels of its last frozen maps (1, C, h, w) that respond most; None where there are no maps."""
    row = data.parts["train"][0]
    pixels = np.array(data.pixels[row])
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    maps, x = None, image.to(model.device, model.dtype)
    with torch.no_grad():
        for index, layer in enumerate(model.network.frozen):
            x = layer(x)
            if index and x.ndim == 4 and x.shape[-1] > 1:  # not the preprocessing, nor pooled
                maps = x[0].float().cpu().numpy()
    if maps is None:
        return None
    strongest = np.argsort(-maps.mean(axis=(1, 2)))[:CHANNELS]
    titles = [data.class_names[data.labels[row]], *(f"channel {channel}" for channel in strongest)]
    return _grid([pixels, *maps[strongest]], titles)


def _grid(images: Sequence, titles: Sequence[str]) -> Figure:
    rows = -(-len(images) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.2 * rows), layout="constrained")
    for axes, image, title in zip(figure.subplots(rows, COLUMNS).flat, images, titles):
        axes.imshow(image)
        axes.set_title(title)
        axes.set_axis_off()
    return figure
