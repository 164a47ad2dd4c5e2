"""Rectangles in images, each image with its own."""

import torch


def rectangles(sides: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Whether the centre of a pixel is inside: top, bottom, left, right, (N, 4) float -> (N, 1, height, width) bool.

    The sides are fractions of the height and of the width.
    """
    top, bottom, left, right = sides[:, :, None].unbind(1)
    rows, columns = ((torch.arange(size, device=sides.device) + 0.5) / size for size in (height, width))
    inside_rows, inside_columns = (rows > top) & (rows < bottom), (columns > left) & (columns < right)
    return (inside_rows[:, :, None] & inside_columns[:, None])[:, None]
