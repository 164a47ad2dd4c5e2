"""The tutorial's augmentation: rotation, shear, shift, zoom and horizontal flip in one affine transformation.

Follows Keras 2's `ImageDataGenerator` (keras_preprocessing, `apply_affine_transform` with order 1, fill mode "nearest").
"""

from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat

from transfer_learning.utilities.validation import validated


@validated
class Affine:
    """Transforms each image with its own parameters; pixels outside the image repeat its border.

    Args:
        rotation: degrees, sampled from [-rotation, rotation].
        shift: fraction of the height and of the width, each sampled from [-shift, shift].
        shear: degrees, sampled from [-shear, shear].
        zoom: each axis is scaled by its own factor from [1 - zoom, 1 + zoom].
        flip: probability of a horizontal flip.
    """

    version = 1

    def __init__(
        self,
        rotation: NonNegativeFloat = 50,
        shift: NonNegativeFloat = 0.2,
        shear: NonNegativeFloat = 0.2,
        zoom: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        flip: Annotated[float, Field(ge=0, le=1)] = 0.5,
    ):
        self.rotation, self.shift, self.shear, self.zoom, self.flip = rotation, shift, shear, zoom, flip

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 7) float32: rotation, shear (radians); shift down, shift right (fractions); zoom down, zoom right; flip."""
        uniform = generator.random((count, 7))
        rotation, shear = np.radians(self.rotation), np.radians(self.shear)
        low = np.array([-rotation, -shear, -self.shift, -self.shift, 1 - self.zoom, 1 - self.zoom])
        high = np.array([rotation, shear, self.shift, self.shift, 1 + self.zoom, 1 + self.zoom])
        parameters = np.empty_like(uniform)
        parameters[:, :6] = low + (high - low) * uniform[:, :6]
        parameters[:, 6] = uniform[:, 6] < self.flip
        return parameters.astype(np.float32)

    def apply(
        self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bilinear, so the results stay within the images' range; targets are unchanged. See `Step.apply`."""
        height, width = images.shape[2:]
        theta, shear, down, right, zoom_y, zoom_x, flip = parameters.unbind(1)
        cos, sin = theta.cos(), theta.sin()
        # Output pixel -> input pixel, relative to the image's centre, rows first: rotation · shift · shear · zoom.
        yy, yx = cos * zoom_y, -(cos * shear.sin() + sin * shear.cos()) * zoom_x
        xy, xx = sin * zoom_y, (cos * shear.cos() - sin * shear.sin()) * zoom_x
        y0, x0 = cos * down * height - sin * right * width, sin * down * height + cos * right * width
        mirror = 1 - 2 * flip  # Keras flips the transformed image, so the output's column is mirrored
        # The coordinates of affine_grid: columns first, [-1, 1] from edge to edge.
        matrix = torch.stack(
            [
                torch.stack([xx * mirror, xy * (height / width), x0 * (2 / width)], dim=1),
                torch.stack([yx * mirror * (width / height), yy, y0 * (2 / height)], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False), targets
