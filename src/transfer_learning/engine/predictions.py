"""Predictions: one table for each evaluated split."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Predictions:
    """What a model predicted for the images of a split, in the order of `indices`, which ascend.

    Attributes:
        indices: of the images in the data module's `images`, (N,) int64.
        logits: (N, 1) or (N, C) float32.
        labels: class codes, (N,) int64.
    """

    indices: torch.Tensor
    logits: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def gather(cls, batches: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> "Predictions":
        """Joins the batches (indices, logits, labels) of this process, and of all others if there are several."""
        columns = [torch.cat(column) for column in zip(*batches)]
        if dist.is_available() and dist.is_initialized():
            shares: list = [None] * dist.get_world_size()
            dist.all_gather_object(shares, [column.cpu() for column in columns])
            columns = [torch.cat(column) for column in zip(*shares)]
        order = columns[0].argsort()
        return cls(*(column[order] for column in columns))
