"""The geometric part of RandAugment (Cubuk et al. 2019)."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field

from transfer_learning.data.augmentation import Augmented
from transfer_learning.data.augmentation.warp import warp
from transfer_learning.utilities.validation import validated

# Of magnitude 30: identity, shear along x and y, translation along x and y (fractions of the sides), rotation.
LARGEST = np.array([0, 0.3, 0.3, 150 / 331, 150 / 331, np.radians(30)])


@validated
class RandAugment:
    """Composes random transformations about the centre of each image into one affine transformation.

    Each is, equally likely, the identity, a shear along x or y, a translation along x or y, or a rotation, in a random
    direction. They are those of torchvision's `RandAugment`, which shears about a corner, samples pixels after each
    transformation, and fills with black; here, pixels outside the image repeat its border.

    Args:
        num_ops: the number of transformations of an image.
        magnitude: of each; 30 shears by 0.3, translates by 0.45 of a side and rotates by 30 degrees.
    """

    version: ClassVar[int] = 1

    def __init__(self, num_ops: Annotated[int, Field(ge=1)] = 2, magnitude: Annotated[float, Field(ge=0, le=30)] = 9.0):
        self.num_ops, self.magnitude = num_ops, magnitude

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 5 * num_ops) float32: for each transformation shear x, y, right, down (fractions), angle (radians).

        At most one of the five is not 0.
        """
        uniform = generator.random((count, self.num_ops, 2))
        chosen = np.eye(6)[(6 * uniform[..., 0]).astype(int)]
        sign = np.where(uniform[..., 1:] < 0.5, -1, 1)
        return (chosen * sign * LARGEST * self.magnitude / 30)[..., 1:].reshape(count, -1).astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Bilinear; targets stay as they are. See `Step.apply`."""
        aspect, matrix = images.shape[2] / images.shape[3], torch.eye(3, dtype=images.dtype, device=images.device)
        # Output -> input in the coordinates of `warp`: columns first, [-1, 1] from edge to edge.
        for values in parameters.to(images.dtype).split(5, dim=1):
            shear_x, shear_y, right, down, angle = values.unbind(1)
            cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
            column, row = [cos, (shear_x - sin) * aspect, -2 * right], [(shear_y + sin) / aspect, cos, -2 * down]
            elements = torch.stack([*column, *row, zero, zero, zero + 1], dim=1)
            matrix = matrix @ elements.view(-1, 3, 3)
        return warp(images, matrix[:, :2]), targets
