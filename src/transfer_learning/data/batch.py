"""Batches, and the dataset that makes them: one indexing operation for all images of a batch."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, DistributedSampler

from transfer_learning.data.augmentation import Augmentation
from transfer_learning.utilities.hardware import memory_format


class Batch(NamedTuple):
    """N images with their targets.

    `inputs` are images, (N, H, W, 3) uint8 as loaded and (N, 3, H, W) float32 in [0, 1] once prepared; or features,
    (N, ...) float. Prepared images and maps are channels-last, contiguous where the device demands it.
    """

    inputs: torch.Tensor
    targets: torch.Tensor  # class codes, (N,) int64, or probabilities, (N, C) float
    indices: torch.Tensor  # of the images in the data module's `images`, (N,) int64
    parameters: tuple[torch.Tensor, ...] = ()  # of each augmentation step, (N, K) float; () without augmentation
    is_features: bool = False

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; itself if it is there. Lightning would rebuild it in each step."""
        if self.inputs.device == device:
            return self
        move = partial(torch.Tensor.to, device=device, non_blocking=device.type == "cuda")
        inputs, targets, indices = move(self.inputs), move(self.targets), move(self.indices)
        return Batch(inputs, targets, indices, tuple(map(move, self.parameters)), self.is_features)


def prepare(batch: Batch, augmentation: Augmentation) -> Batch:
    """Converts uint8 images to floats in [0, 1] and augments them, on the device where they are; features stay."""
    if batch.is_features:
        inputs = laid_out(batch.inputs)
        return batch if inputs is batch.inputs else batch._replace(inputs=inputs)
    images = as_floats(batch.inputs)
    if not batch.parameters:
        return batch._replace(inputs=images)
    images, targets = augmentation.apply(images, batch.targets, batch.parameters)
    return batch._replace(inputs=laid_out(images), targets=targets)


def as_floats(pixels: torch.Tensor) -> torch.Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [0, 1], mostly channels-last without a copy of the bytes."""
    return laid_out(pixels.permute(0, 3, 1, 2).float().div_(255))


def laid_out(inputs: torch.Tensor) -> torch.Tensor:
    """Images or maps, (N, C, H, W), as they lie in the memory of their device; other tensors as they are."""
    return inputs.contiguous(memory_format=memory_format(inputs.device)) if inputs.ndim == 4 else inputs


class SplitDataset(Dataset):
    """One split of N images. A list of positions becomes one batch.

    Args:
        array: images, (R, H, W, 3) uint8, or features, (R, ...), as `is_features` tells.
        rows: rows of the array, (V, N) int64: V versions (views) of each image.
        indices, labels: of the images, (N,) int64.
        sample: epoch -> augmentation parameters of the N images for each step; None for no augmentation.
        choose: epoch -> the version of each image, (N,) int64; None takes the first.
        draw: epoch -> positions of the images that it shows, (N,) int64, some of them several times; None shows each
            image once. `sample` and `choose` are then for these N, so that an image differs from time to time.
        device: a device that keeps a copy of the split; None reads the array where it is.
    """

    sampler: DistributedSampler | None = None  # it knows the epoch

    def __init__(
        self,
        array: np.ndarray,
        rows: np.ndarray,
        indices: np.ndarray,
        labels: np.ndarray,
        sample: Callable[[int], Sequence[np.ndarray]] | None = None,
        choose: Callable[[int], np.ndarray] | None = None,
        draw: Callable[[int], np.ndarray] | None = None,
        is_features: bool = False,
        device: torch.device | None = None,
    ):
        if device is not None:
            array, rows = array[rows.ravel()], np.arange(rows.size, dtype=np.int64).reshape(rows.shape)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(values).to(device)

        self.array, self.rows, self.indices, self.labels = map(tensor, (array, rows, indices, labels))
        self.is_features, self.device = is_features, device
        self.sample = _of_last_epoch(sample, lambda parameters: tuple(map(tensor, parameters)))
        self.choose, self.draw = _of_last_epoch(choose, tensor), _of_last_epoch(draw, tensor)

    def __len__(self) -> int:
        return self.rows.shape[1]

    def __getitems__(self, of_batch: Sequence[int]) -> Batch:
        positions = torch.tensor(of_batch).to(self.device, non_blocking=True)
        epoch = self.sampler.epoch if self.sampler else 0
        images = self.draw(epoch)[positions] if self.draw else positions
        view = self.choose(epoch)[positions] if self.choose else 0
        inputs = self.array[self.rows[view, images]]
        parameters = tuple(each[positions] for each in self.sample(epoch)) if self.sample else ()
        inputs = features_from_rows(inputs) if self.is_features else inputs
        return Batch(inputs, self.labels[images], self.indices[images], parameters, self.is_features)


def _of_last_epoch(function: Callable[[int], Any] | None, convert: Callable[[Any], Any]) -> Callable[[int], Any] | None:
    """epoch -> the function's converted result, which is kept until another epoch is asked for; None for None."""
    return lru_cache(1)(lambda epoch: convert(function(epoch))) if function else None


def as_it_is(batch: Any) -> Batch:
    """Collates nothing: `SplitDataset` returns whole batches. (A lambda could not be pickled for worker processes.)"""
    return batch


def used_batches(batches: int, limit: int | float) -> int:
    """How many of so many batches Lightning uses with such a limit, that of `limit_train_batches` and its like."""
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def features_to_rows(features: torch.Tensor) -> np.ndarray:
    """(N, ...) float on any device -> rows of a cached array; maps become (N, h, w, C), channels-last."""
    if features.ndim == 4:
        features = features.permute(0, 2, 3, 1)
    if features.dtype == torch.bfloat16:  # unknown to NumPy: the same bits as integers
        features = features.contiguous().view(torch.int16)
    return features.cpu().numpy()


def features_from_rows(rows: torch.Tensor) -> torch.Tensor:
    """The inverse of `features_to_rows`; maps are channels-last in memory."""
    rows = rows.view(torch.bfloat16) if rows.dtype == torch.int16 else rows
    return rows.permute(0, 3, 1, 2) if rows.ndim == 4 else rows
