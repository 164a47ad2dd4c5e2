"""Evaluation of a trained model on labelled images."""

from typing import Any, NamedTuple

import numpy as np
import torch

from transfer_learning.data.images import Images
from transfer_learning.engine.calibration import fit_temperature
from transfer_learning.engine.inference import Inference, pixel_chunks
from transfer_learning.reporting.evaluation import evaluate
from transfer_learning.reporting.prediction_table import PredictionTable
from transfer_learning.utilities.errors import UserError


class Evaluated(NamedTuple):
    """What a model computed for labelled images."""

    images: Images  # the N images that could be read
    versions: list[torch.Tensor]  # logits, (N, 1) or (N, C) float32: of the images, and if flipped of mirror images
    unreadable: dict[str, str]  # name of each of the other images -> the reason

    @property
    def logits(self) -> torch.Tensor:
        """Those of the images as they are."""
        return self.versions[0]

    def calibrated(self, model: Any) -> torch.Tensor:
        """Logits of the mean of the versions' calibrated probabilities, (N, 1) or (N, C)."""
        return model.objective.mean_logits([logits / model.temperature for logits in self.versions])

    def metrics(self, model: Any) -> dict[str, Any]:
        """See `reporting.evaluation.evaluate`."""
        labels = torch.from_numpy(self.images.labels)
        logits = self.calibrated(model)
        losses, probabilities = model.objective.losses(logits, labels), model.objective.probabilities(logits)
        return evaluate(probabilities.numpy(), self.images.labels, losses.numpy(), model.class_names)

    def table(self, model: Any, split: str) -> PredictionTable:
        images, probabilities = self.images, model.objective.probabilities(self.calibrated(model)).numpy()
        splits = [split] * len(images.names)
        return PredictionTable(images.names, images.digests, splits, images.labels, probabilities, model.class_names)


def evaluate_images(inference: Inference, images: Images) -> Evaluated:
    """Computes the logits of labelled images, whose codes are those of the model.

    Raises UserError if no image can be read.
    """
    indices, versions, unreadable = list[int](), list[list[torch.Tensor]](), dict[int, str]()
    for read, pixels, reasons in pixel_chunks(images, [inference.model.preprocessing]):
        indices += read
        versions.append(inference.versions(pixels[inference.model.preprocessing]))
        unreadable |= reasons
    named = {images.names[index]: reason for index, reason in unreadable.items()}
    if not indices:
        file, reason = next(iter(named.items()))
        raise UserError(f"{file}: not readable as an image ({reason}), and no other image is readable either.")
    found = images.take(np.array(indices, dtype=np.int64))
    return Evaluated(found, [torch.cat(each) for each in zip(*versions)], named)


def calibrate(model: Any, validation: Evaluated) -> None:
    """Sets the temperature of a model to the one that fits best, whatever it was before.

    It is fitted to the images as they are, without test-time augmentation.
    """
    labels = torch.from_numpy(validation.images.labels)
    model.temperature = fit_temperature(validation.logits, labels, model.objective)
