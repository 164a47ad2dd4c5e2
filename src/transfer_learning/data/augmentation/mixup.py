"""Mixup (Zhang et al. 2017): mixes each image, and its target, with another image of the batch."""

from typing import ClassVar

import numpy as np
import torch

from transfer_learning.data.augmentation import Augmented
from transfer_learning.utilities.validation import Positive, Probability, validated


@validated
class Mixup:
    """`weight * image + (1 - weight) * partner`; each image's partner is the one before it in the batch (of a device).

    Args:
        alpha: the weight is sampled from Beta(alpha, alpha), for each image.
        probability: that an image is mixed; else its weight is 1.
    """

    version: ClassVar[int] = 1
    mixes_targets: ClassVar[bool] = True

    def __init__(self, alpha: Positive = 0.2, probability: Probability = 1.0):
        self.alpha, self.probability = alpha, probability

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 1) float32: the weight, in [0, 1]."""
        is_mixed = generator.random((count, 1)) < self.probability
        return np.where(is_mixed, generator.beta(self.alpha, self.alpha, (count, 1)), 1).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets are probabilities, (N, C) float. See `Step.apply`."""
        weight = parameters.to(images.dtype)
        mixed = images.roll(1, 0).lerp_(images, weight[:, :, None, None])
        return mixed, targets.roll(1, 0).lerp(targets, weight.to(targets.dtype))
