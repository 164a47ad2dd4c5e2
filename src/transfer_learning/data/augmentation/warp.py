"""Samples images at the positions that an affine transformation gives."""

from functools import lru_cache

import torch
import torch.nn.functional as F

from transfer_learning.utilities import hardware


def warp(images: torch.Tensor, matrices: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Transforms each image, bilinearly; outside it, its border is repeated.

    Args:
        images: (N, C, H, W) float.
        matrices: output position -> input position, (N, 2, 3) float. Positions are (column, row, 1), in [-1, 1] from
            edge to edge, as in `torch.nn.functional.affine_grid` without `align_corners`.
        size: height and width of the result; None is that of the images.
    """
    (height, width), matrices = size or images.shape[2:], matrices.to(images.dtype)
    positions = _centres(height, width, images.dtype, images.device)
    # One product; affine_grid's N products of small matrices have the same results in many times the time on a CPU.
    grid = (matrices.reshape(-1, 3) @ positions).view(-1, 2, height, width).permute(0, 2, 3, 1)
    if images.device.type in hardware.WITHOUT_BORDER_PADDING:
        return F.grid_sample(images, clamp_to_centres(grid, images), padding_mode="zeros", align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def clamp_to_centres(grid: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Positions, (N, H, W, 2), within the centres of the outermost pixels, where no pixels outside are needed."""
    height, width = images.shape[2:]
    columns, rows = grid.unbind(3)
    return torch.stack([columns.clamp(1 / width - 1, 1 - 1 / width), rows.clamp(1 / height - 1, 1 - 1 / height)], dim=3)


@lru_cache(4)
def _centres(height: int, width: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The positions of all pixels' centres, (3, height · width), as `affine_grid` rounds them."""
    sizes = (height, width)
    rows, columns = (torch.linspace(-1, 1, size, dtype=dtype, device=device) * (size - 1) / size for size in sizes)
    rows, columns = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([columns, rows, torch.ones_like(rows)]).view(3, -1)
