"""Predictions: one table for each evaluated split."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist


class Predictions(NamedTuple):
    """What a model predicted for the images of a split, sorted by index."""

    indices: torch.Tensor  # of the images in the data module's `images`, (N,) int64
    logits: torch.Tensor  # (N, 1) or (N, C) float32
    labels: torch.Tensor  # class codes, (N,) int64

    @classmethod
    def gather(cls, batches: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> "Predictions":
        """Joins the batches (indices, logits, labels) of this process, and of all others if there are several."""
        columns = [torch.cat(column) for column in zip(*batches)]
        if dist.is_available() and dist.is_initialized():
            shares: list = [None] * dist.get_world_size()
            dist.all_gather_object(shares, [column.cpu() for column in columns])
            columns = [torch.cat(column) for column in zip(*filter(None, shares))]  # a device may have no images
        order = columns[0].argsort()
        return cls(*(column[order] for column in columns))
