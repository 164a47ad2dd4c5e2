"""One part of the split, handed out in batches."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

# Memory-mapped arrays cannot be written, and are not.
warnings.filterwarnings("ignore", ".*given NumPy array is not writable.*")


class Batch(NamedTuple):
    """
    Attributes:
        x: images, (N, H, W, 3) uint8 from the loader; (N, 3, H, W) float32 in [0, 1], channels-last, once on the device. Or, of an
            encoded batch, what a network's frozen part makes of them, (N, …) in its precision (`ImageData.encode_once`).
        labels: (N,) int64 class codes.
        draws: (N, 7) float32, each image's augmentation (`augment.draw`), or None.
        encoded: whether `x` is encoded.
    """

    x: torch.Tensor
    labels: torch.Tensor
    draws: torch.Tensor | None
    encoded: bool


class Part(Dataset):
    """One part of the split. A list of positions becomes one batch.

    Args:
        versions: one array of images, (M, H, W, 3) uint8, or one or more of their encoded versions, (M, …) each.
        rows: this part's images, (N,) indices into each array.
        labels: (N,) int64.
        draw: epoch -> (N, 7) float32 augmentation draws; None leaves images as they are.
        choose: epoch -> (N,) which version each image has; None where there is one.
        encoded: whether the arrays are encoded.
        device: where copies of this part's rows lie from now on, and batches are made; None reads the arrays where they are.
    """

    def __init__(
        self,
        versions: Sequence[np.ndarray],
        rows: np.ndarray,
        labels: np.ndarray,
        draw: Callable[[int], np.ndarray] | None = None,
        choose: Callable[[int], np.ndarray] | None = None,
        encoded: bool = False,
        device: torch.device | None = None,
    ):
        if device is not None:
            versions, rows = [torch.from_numpy(version[rows]).to(device) for version in versions], np.arange(len(rows))
        self.versions = [torch.as_tensor(version) for version in versions]
        self.rows, self.labels = torch.from_numpy(rows), torch.from_numpy(labels).to(device)
        self.encoded, self.device = encoded, device
        self.draw = draw and lru_cache(maxsize=1)(lambda epoch: torch.from_numpy(draw(epoch)).to(device))
        self.choose = choose and lru_cache(maxsize=1)(choose)
        self.sampler: DistributedSampler | None = None  # where the epoch is known

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        here = torch.tensor(positions).to(self.device, non_blocking=True)
        if self.choose:
            chosen = self.choose(self.sampler.epoch)[positions]
            x = torch.stack(
                [self.versions[version][row] for version, row in zip(chosen, self.rows[positions].tolist())]
            )
        else:
            x = self.versions[0][self.rows[positions] if self.device is None else here]
        return Batch(
            x=from_rows(x) if self.encoded else x,
            labels=self.labels[here],
            draws=self.draw(self.sampler.epoch)[here] if self.draw else None,
            encoded=self.encoded,
        )


def to_rows(tensor: torch.Tensor) -> np.ndarray:
    """(N, …) float on any device -> an array that `from_rows` turns back: maps as (N, h, w, C), the layout that convolutions prefer."""
    if tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)
    if tensor.dtype == torch.bfloat16:  # NumPy has none: its bits as integers
        tensor = tensor.contiguous().view(torch.int16)
    return tensor.cpu().numpy()


def from_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of such an array as what `to_rows` was given; maps are channels-last in memory."""
    if rows.dtype == torch.int16:
        rows = rows.view(torch.bfloat16)
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows
