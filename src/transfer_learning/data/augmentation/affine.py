"""The tutorial's augmentation: rotation, shear, shift, zoom and horizontal flip in one affine transformation."""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat

from transfer_learning.data.augmentation import Augmented
from transfer_learning.data.augmentation.warp import warp
from transfer_learning.utilities.validation import Probability, validated


@validated
class Affine:
    """Transforms each image with its own parameters; pixels outside the image repeat its border.

    Follows Keras 2's `ImageDataGenerator` (`apply_affine_transform` with order 1 and fill mode "nearest").

    Args:
        rotation, shear: degrees, sampled from [-rotation, rotation] and [-shear, shear].
        shift: fraction of the height and of the width, each sampled from [-shift, shift].
        zoom: each axis is scaled by its own factor from [1 - zoom, 1 + zoom].
        flip: probability of a horizontal flip.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        rotation: NonNegativeFloat = 50.0,
        shift: NonNegativeFloat = 0.2,
        shear: NonNegativeFloat = 0.2,
        zoom: Annotated[float, Field(ge=0, lt=1)] = 0.3,
        flip: Probability = 0.5,
    ):
        self.rotation, self.shift, self.shear, self.zoom, self.flip = rotation, shift, shear, zoom, flip

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """(N, 7) float32: rotation, shear (radians), shift down, right (fractions), zoom down, right, flip (0 or 1)."""
        uniform, rotation, shear = generator.random((count, 7)), np.radians(self.rotation), np.radians(self.shear)
        low = np.array([-rotation, -shear, -self.shift, -self.shift, 1 - self.zoom, 1 - self.zoom])
        high = np.array([rotation, shear, self.shift, self.shift, 1 + self.zoom, 1 + self.zoom])
        parameters = np.empty_like(uniform)
        parameters[:, :6] = low + (high - low) * uniform[:, :6]
        parameters[:, 6] = uniform[:, 6] < self.flip
        return parameters.astype(np.float32)

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Bilinear, so results stay within the images' range; targets stay as they are. See `Step.apply`."""
        height, width = images.shape[2:]
        theta, shear, down, right, zoom_y, zoom_x, flip = parameters.unbind(1)
        cos, sin = theta.cos(), theta.sin()
        # Output pixel -> input pixel, relative to the image's centre, rows first: rotation · shift · shear · zoom.
        yy, yx = cos * zoom_y, -(cos * shear.sin() + sin * shear.cos()) * zoom_x
        xy, xx = sin * zoom_y, (cos * shear.cos() - sin * shear.sin()) * zoom_x
        y0, x0 = cos * down * height - sin * right * width, sin * down * height + cos * right * width
        mirror = 1 - 2 * flip  # Keras flips the transformed image, so the output's column is mirrored
        # The coordinates of `warp`: columns first, [-1, 1] from edge to edge.
        column = torch.stack([xx * mirror, xy * (height / width), x0 * (2 / width)], dim=1)
        row = torch.stack([yx * mirror * (width / height), yy, y0 * (2 / height)], dim=1)
        matrix = torch.stack([column, row], dim=1)
        return warp(images, matrix), targets
