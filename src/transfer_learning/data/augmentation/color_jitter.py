"""Random changes of brightness, contrast, saturation and hue."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat

from transfer_learning.data.augmentation import Augmented
from transfer_learning.utilities.validation import validated


@validated
class ColorJitter:
    """As torchvision's `ColorJitter`, each image with its own factors, but always in the order of the arguments.

    Args:
        brightness, contrast, saturation: each factor is sampled uniformly from [max(0, 1 - value), 1 + value].
        hue: a shift, sampled uniformly from [-hue, hue]; 1 is once around the color wheel.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        brightness: NonNegativeFloat = 0.4,
        contrast: NonNegativeFloat = 0.4,
        saturation: NonNegativeFloat = 0.4,
        hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0,
    ):
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 4) float32: factors of brightness, contrast and saturation, >= 0, and the shift of the hue."""
        largest = 1 + np.array([self.brightness, self.contrast, self.saturation])
        low = np.array([*np.maximum(0, 2 - largest), -self.hue])
        high = np.array([*largest, 1 + (self.hue - 1)])  # rounded, so that samples stay the same
        return (low + (high - low) * generator.random((count, 4))).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Targets stay as they are. See `Step.apply`."""
        brightness, contrast, saturation, hue = parameters.to(images.dtype)[:, :, None, None, None].unbind(1)
        images = (images * brightness).clamp_(0, 1)
        images = _grey(images).mean(dim=(2, 3), keepdim=True).lerp(images, contrast).clamp_(0, 1)
        images = _grey(images).lerp(images, saturation).clamp_(0, 1)
        if self.hue:
            images = _shift_hue(images, hue)
        return images, targets


def _grey(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 1, H, W), with the weights of ITU-R BT.601."""
    return torch.einsum("nchw,c->nhw", images, images.new_tensor([0.2989, 0.587, 0.114]))[:, None]


def _shift_hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Adds (N, 1, 1, 1) to the hue in [0, 1) of the HSV colours, and returns RGB."""
    value, (red, green, blue) = images.amax(1, keepdim=True), images.split(1, dim=1)
    chroma = value - images.amin(1, keepdim=True)
    safe = torch.where(chroma > 0, chroma, 1)
    sector = torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)  # in sixths of the wheel
    sector = torch.where(value == red, (green - blue) / safe, sector) + 6 * shift
    distance = (images.new_tensor([5, 3, 1])[:, None, None] + sector) % 6
    return value - chroma * torch.minimum(distance, 4 - distance).clamp(0, 1)
