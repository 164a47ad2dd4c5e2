"""The tutorial's augmentation: a table of draws, and its application to a batch on any device.

Follows Keras 2's `ImageDataGenerator` (keras_preprocessing, `apply_affine_transform` with order 1 and fill mode "nearest").
"""

import numpy as np
import torch
import torch.nn.functional as F

from transfer_learning.errors import UserError

COLUMNS = (
    7  # rotation, shear (radians); shift down, shift right (shares of the side); zoom down, zoom right; flip (0 or 1)
)


def draw(
    count: int,
    seed: int,
    epoch: int,
    rotation: float = 50,
    shift: float = 0.2,
    shear: float = 0.2,
    zoom: float = 0.3,
    flip: float = 0.5,
) -> np.ndarray:
    """Draws one transformation for each image of an epoch: a function of (seed, epoch, image).

    Args:
        count: images N.
        seed, epoch: another pair, other draws.
        rotation: degrees, drawn from ±rotation.
        shift: share of the height and of the width, each drawn from ±shift.
        shear: degrees, drawn from ±shear.
        zoom: each axis is scaled by a factor of its own from 1 ± zoom.
        flip: probability of a horizontal flip.

    Returns:
        (N, 7) float32, columns as in `COLUMNS`.

    Raises:
        UserError: `zoom` would turn images inside out.
    """
    if not 0 <= zoom < 1:
        raise UserError(f"data.augmentation.zoom={zoom}: expected at least 0 and less than 1.")
    uniform = np.random.default_rng((seed, epoch)).random((count, COLUMNS))
    low = np.array([-np.radians(rotation), -np.radians(shear), -shift, -shift, 1 - zoom, 1 - zoom])
    high = np.array([np.radians(rotation), np.radians(shear), shift, shift, 1 + zoom, 1 + zoom])
    table = np.empty_like(uniform)
    table[:, :6] = low + (high - low) * uniform[:, :6]
    table[:, 6] = uniform[:, 6] < flip
    return table.astype(np.float32)


def augment(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Transforms each image by its own draws; pixels beyond the border repeat it.

    Args:
        images: (N, 3, H, W) float, any range.
        draws: (N, 7) float32 from `draw`, on the images' device.

    Returns:
        (N, 3, H, W) of the images' dtype and device; bilinear, so within the images' range.
    """
    height, width = images.shape[2:]
    theta, shear, down, right, zoom_y, zoom_x, flip = draws.unbind(1)
    cos, sin = theta.cos(), theta.sin()
    # Output pixel -> input pixel, about the image's centre, rows first: rotation · shift · shear · zoom.
    yy, yx = cos * zoom_y, -(cos * shear.sin() + sin * shear.cos()) * zoom_x
    xy, xx = sin * zoom_y, (cos * shear.cos() - sin * shear.sin()) * zoom_x
    y0, x0 = cos * down * height - sin * right * width, sin * down * height + cos * right * width
    mirror = 1 - 2 * flip  # Keras flips what it has transformed, so the output's column is mirrored
    # affine_grid's coordinates: columns first, [-1, 1] from edge to edge.
    matrix = torch.stack(
        [
            torch.stack([xx * mirror, xy * (height / width), x0 * (2 / width)], dim=1),
            torch.stack([yx * mirror * (width / height), yy, y0 * (2 / height)], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(matrix.to(images.dtype), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
