"""Random horizontal flip."""

from typing import ClassVar

import numpy as np
import torch

from transfer_learning.data.augmentation import Augmented
from transfer_learning.utilities.validation import Probability, validated


@validated
class HorizontalFlip:
    """Flips each image with a probability."""

    version: ClassVar[int] = 1

    def __init__(self, probability: Probability = 0.5):
        self.probability = probability

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 1) float32: 1 if the image is flipped, else 0."""
        return (generator.random((count, 1)) < self.probability).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets stay as they are. See `Step.apply`."""
        return images.lerp(images.flip(3), parameters[:, :, None, None].to(images.dtype)), targets
