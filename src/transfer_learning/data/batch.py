"""Batches, and the dataset that makes them: one indexing operation for all images of a batch."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from transfer_learning.data.augmentation import Augmentation


class Batch(NamedTuple):
    """
    Attributes:
        inputs: images, (N, H, W, 3) uint8 as loaded, (N, 3, H, W) float32 in [0, 1] and channels-last once prepared; or
            features, (N, ...) float.
        targets: class codes, (N,) int64, or probabilities, (N, C) float.
        indices: the index of each image in the data module's `images`, (N,) int64.
        parameters: for each augmentation step the parameters of the images, (N, K) float32; () without augmentation.
        is_features: whether `inputs` are features.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    parameters: tuple[torch.Tensor, ...] = ()
    is_features: bool = False


def prepare(batch: Batch, augmentation: Augmentation) -> Batch:
    """Converts uint8 images to floats in [0, 1] and augments them, on the device where they are; features stay."""
    if batch.is_features:
        return batch
    images = batch.inputs.permute(0, 3, 1, 2).float().div_(255)  # stored as (N, H, W, 3): channels-last without a copy
    targets = batch.targets
    if batch.parameters:
        images, targets = augmentation.apply(images, targets, batch.parameters)
        images = images.contiguous(memory_format=torch.channels_last)
    return batch._replace(inputs=images, targets=targets)


class SplitDataset(Dataset):
    """One split. A list of positions becomes one batch.

    Args:
        array: images, (R, H, W, 3) uint8, or features, (R, ...).
        rows: rows of the array, (V, N) int64: V versions (views) of each of the N images.
        indices: indices of the images, (N,) int64.
        labels: class codes of the images, (N,) int64.
        sample: epoch -> augmentation parameters of the N images, for each step; None for no augmentation.
        choose: epoch -> the version of each image, (N,) int64; None takes the first.
        is_features: whether the array holds features.
        device: a device that keeps a copy of the split; None reads the array where it is.
    """

    def __init__(
        self,
        array: np.ndarray,
        rows: np.ndarray,
        indices: np.ndarray,
        labels: np.ndarray,
        sample: Callable[[int], Sequence[np.ndarray]] | None = None,
        choose: Callable[[int], np.ndarray] | None = None,
        is_features: bool = False,
        device: torch.device | None = None,
    ):
        if device is not None:
            array, rows = array[rows.ravel()], np.arange(rows.size).reshape(rows.shape)
        self.array = torch.from_numpy(array).to(device)
        self.rows, self.indices, self.labels = (torch.from_numpy(each).to(device) for each in (rows, indices, labels))
        self.is_features, self.device = is_features, device
        self.sample = sample and lru_cache(maxsize=1)(
            lambda epoch: [torch.from_numpy(each).to(device) for each in sample(epoch)]
        )
        self.choose = choose and lru_cache(maxsize=1)(lambda epoch: torch.from_numpy(choose(epoch)).to(device))
        self.sampler: DistributedSampler | None = None  # it knows the epoch

    def __len__(self) -> int:
        return self.rows.shape[1]

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        here = torch.tensor(positions).to(self.device, non_blocking=True)
        epoch = self.sampler.epoch if self.sampler else 0
        rows = self.rows[self.choose(epoch)[here], here] if self.choose else self.rows[0][here]
        inputs = self.array[rows]
        return Batch(
            inputs=features_from_rows(inputs) if self.is_features else inputs,
            targets=self.labels[here],
            indices=self.indices[here],
            parameters=tuple(each[here] for each in self.sample(epoch)) if self.sample else (),
            is_features=self.is_features,
        )


def features_to_rows(features: torch.Tensor) -> np.ndarray:
    """(N, ...) float on any device -> rows for an array file; maps become (N, h, w, C), channels-last."""
    if features.ndim == 4:
        features = features.permute(0, 2, 3, 1)
    if features.dtype == torch.bfloat16:  # unknown to NumPy: the same bits as integers
        features = features.contiguous().view(torch.int16)
    return features.cpu().numpy()


def features_from_rows(rows: torch.Tensor) -> torch.Tensor:
    """The inverse of `features_to_rows`; maps are channels-last in memory."""
    if rows.dtype == torch.int16:
        rows = rows.view(torch.bfloat16)
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows
