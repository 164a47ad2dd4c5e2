"""Random resized crop (Szegedy et al. 2015, "Inception crop"), with a horizontal flip."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from transfer_learning.data.augmentation import Augmented
from transfer_learning.data.augmentation.warp import warp
from transfer_learning.utilities.validation import Positive, Probability, Range, Share, validated


@validated
class RandomResizedCrop:
    """Cuts a random rectangle out of each image and resizes it, bilinearly, to a square.

    As torchvision's `RandomResizedCrop(antialias=False)`, but for three things. The rectangle is not rounded to whole
    pixels. A side that would be longer than the image's is cut to that, where torchvision samples again. At the
    rectangle's border, the pixels outside are interpolated too, where torchvision repeats the border.

    Args:
        scale: range of the rectangle's share of the area, sampled uniformly.
        ratio: range of its width divided by its height, sampled uniformly in the logarithm.
        flip: probability of a horizontal flip.
        size: side of the square in pixels; None is that of the images.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        scale: Range[Share] = (0.35, 1.0),
        ratio: Range[Positive] = (3 / 4, 4 / 3),
        flip: Probability = 0.5,
        size: Annotated[int, Field(ge=1)] | None = None,
    ):
        self.scale, self.ratio, self.flip, self.size = list(scale), list(ratio), flip, size

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 5) float32: height, width (fractions), centre down, right (in [-1, 1]), flip (0 or 1)."""
        uniform, ratio = generator.random((count, 5)), np.log(self.ratio)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * uniform[:, 0]
        aspect = np.exp(ratio[0] + (ratio[1] - ratio[0]) * uniform[:, 1])
        height, width = np.minimum(np.sqrt(area / aspect), 1), np.minimum(np.sqrt(area * aspect), 1)
        down, right = (1 - height) * (2 * uniform[:, 2] - 1), (1 - width) * (2 * uniform[:, 3] - 1)
        return np.stack([height, width, down, right, uniform[:, 4] < self.flip], axis=1).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets stay as they are. Returns images (N, 3, size, size). See `Step.apply`."""
        height, width, down, right, flip = parameters.to(images.dtype).unbind(1)
        zero = torch.zeros_like(height)
        rows = [torch.stack([width * (1 - 2 * flip), zero, right], dim=1), torch.stack([zero, height, down], dim=1)]
        return warp(images, torch.stack(rows, dim=1), (self.size, self.size) if self.size else None), targets
