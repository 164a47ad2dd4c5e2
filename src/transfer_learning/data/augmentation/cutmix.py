"""CutMix (Yun et al. 2019): a rectangle of each image is replaced by that of another image of the batch."""

from typing import ClassVar

import numpy as np
import torch

from transfer_learning.data.augmentation import Augmented
from transfer_learning.utilities.validation import Positive, Probability, validated


@validated
class CutMix:
    """Pastes a rectangle of the image before it in the batch (of a device), and mixes the targets by its area.

    The rectangle has the image's aspect ratio; its centre is anywhere in the image, so it may be cut at the border.
    The targets are weighted by the pixels that are replaced.

    Args:
        alpha: the area before it is cut is a fraction that is sampled from Beta(alpha, alpha), for each image.
        probability: that an image is mixed; else the area is 0.
    """

    version: ClassVar[int] = 1
    mixes_targets: ClassVar[bool] = True

    def __init__(self, alpha: Positive = 1.0, probability: Probability = 1.0):
        self.alpha, self.probability = alpha, probability

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 4) float32: top, bottom, left, right of the rectangle as fractions of the sides; may exceed [0, 1]."""
        uniform, area = generator.random((count, 3)), generator.beta(self.alpha, self.alpha, count)
        half = np.sqrt(np.where(uniform[:, 0] < self.probability, area, 0)) / 2
        down, right = uniform[:, 1], uniform[:, 2]
        return np.stack([down - half, down + half, right - half, right + half], axis=1).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets are probabilities, (N, C) float. See `Step.apply`."""
        inside = rectangles(parameters, *images.shape[2:])
        area = inside.flatten(1).to(targets.dtype).mean(dim=1, keepdim=True)
        return images.lerp(images.roll(1, 0), inside.to(images.dtype)), targets.lerp(targets.roll(1, 0), area)


def rectangles(sides: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Whether the centre of a pixel is inside: top, bottom, left, right, (N, 4) float -> (N, 1, height, width) bool.

    The sides are fractions of the height and of the width.
    """
    top, bottom, left, right = sides[:, :, None].unbind(1)
    rows, columns = ((torch.arange(size, device=sides.device) + 0.5) / size for size in (height, width))
    inside_rows, inside_columns = (rows > top) & (rows < bottom), (columns > left) & (columns < right)
    return (inside_rows[:, :, None] & inside_columns[:, None])[:, None]
