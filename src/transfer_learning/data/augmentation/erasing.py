"""Random erasing (Zhong et al. 2017): fills a random rectangle of each image with one colour."""

from typing import ClassVar

import numpy as np
import torch

from transfer_learning.data.augmentation import Augmented
from transfer_learning.data.augmentation.rectangles import rectangles
from transfer_learning.utilities.validation import Positive, Probability, Range, Share, validated


@validated
class Erasing:
    """As torchvision's `RandomErasing`, but a side that would be longer than the image's is cut to that.

    torchvision samples again then.

    Args:
        probability: that an image gets a rectangle.
        scale: range of the rectangle's share of the area, sampled uniformly.
        ratio: range of its height divided by its width, sampled uniformly in the logarithm.
        value: grey level in [0, 1]; None is a random colour for each rectangle, each channel uniform in [0, 1].
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        probability: Probability = 0.5,
        scale: Range[Share] = (0.02, 0.33),
        ratio: Range[Positive] = (0.3, 3.3),
        value: Probability | None = None,
    ):
        self.probability, self.scale, self.ratio, self.value = probability, list(scale), list(ratio), value

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 7) float32 in [0, 1]: top, bottom, left, right (fractions), then the colour."""
        uniform, ratio = generator.random((count, 8)), np.log(self.ratio)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * uniform[:, 0]
        area = np.where(uniform[:, 1] < self.probability, area, 0)
        aspect = np.exp(ratio[0] + (ratio[1] - ratio[0]) * uniform[:, 2])
        height, width = np.minimum(np.sqrt(area * aspect), 1), np.minimum(np.sqrt(area / aspect), 1)
        top, left = (1 - height) * uniform[:, 3], (1 - width) * uniform[:, 4]
        colour = uniform[:, 5:] if self.value is None else np.full((count, 3), self.value)
        return np.column_stack([top, top + height, left, left + width, colour]).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets stay as they are. See `Step.apply`."""
        inside, colour = rectangles(parameters[:, :4], *images.shape[2:]), parameters[:, 4:, None, None]
        return torch.where(inside, colour.to(images.dtype), images), targets
