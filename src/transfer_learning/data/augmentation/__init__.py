"""Augmentation: a list of steps that are applied to batches on the device."""

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F

from transfer_learning.utilities.errors import ArgumentError

Augmented = tuple[torch.Tensor, torch.Tensor]  # images and targets, see `Step.apply`


@runtime_checkable
class Step(Protocol):
    """One augmentation, such as an affine transformation. Its attributes are plain values.

    Raise `version` when `sample` or `apply` give other results, so that cached features are computed anew.
    """

    version: ClassVar[int]

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Samples the parameters of N images, (N, K) float32."""

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: torch.Tensor) -> Augmented:
        """Augments images, (N, 3, H, W) float in [0, 1], by their parameters, (N, K) of their dtype, on their device.

        `targets` are class codes, (N,) int64, or probabilities, (N, C) float; codes may become probabilities. A step
        with an attribute `mixes_targets = True` gets probabilities.
        """


class Augmentation:
    """Steps that are applied one after the other. Parameters are a tuple with one array for each step.

    `num_classes` is needed by steps that mix targets.
    """

    def __init__(self, steps: Sequence[Step], num_classes: int | None = None):
        self.steps, self.num_classes = list(steps), num_classes

    def sample(self, count: int, seed: int, epoch: int) -> tuple[np.ndarray, ...]:
        """Samples the parameters of N images: a function of (seed, epoch, step, position of the image)."""
        seeds = [(seed, epoch), *((seed, epoch, 1 + step) for step in range(1, len(self.steps)))]
        return tuple(step.sample(count, np.random.default_rng(each)) for step, each in zip(self.steps, seeds))

    def apply(self, images: torch.Tensor, targets: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Augmented:
        """As `Step.apply`."""
        for step, values in zip(self.steps, parameters, strict=True):
            if targets.ndim == 1 and getattr(step, "mixes_targets", False):
                if self.num_classes is None:
                    raise ArgumentError("num_classes", None, f"{type(step).__name__} needs the number of classes.")
                targets = F.one_hot(targets, self.num_classes).to(images.dtype)
            images, targets = step.apply(images, targets, values)
        return images, targets

    def image_size(self, size: int) -> int:
        """The side of augmented images, in pixels, if that of the images is `size`."""
        parameters = [torch.from_numpy(each) for each in self.sample(1, 0, 0)]
        images, _ = self.apply(torch.zeros(1, 3, size, size), torch.zeros(1, dtype=torch.int64), parameters)
        return images.shape[-1]

    @property
    def key(self) -> list[dict]:
        """Plain values on which the results depend besides images and parameters."""
        names = [f"{type(step).__module__}.{type(step).__qualname__}" for step in self.steps]
        return [{"step": name, "version": step.version} | vars(step) for name, step in zip(names, self.steps)]
