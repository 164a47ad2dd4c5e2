"""Features: the output of a network's frozen part, computed once for each image and stored."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from transfer_learning.data.augmentation import Augmentation
from transfer_learning.data.batch import Batch, features_to_rows, prepare
from transfer_learning.data.cache import CHUNK, CachedArray
from transfer_learning.utilities.errors import ArgumentError, UserError


def batch_size(image_size: int, device: torch.device) -> int:
    """How many images pass the frozen part together: always as many, since kernels round differently for other numbers.

    On a CPU 32: VGG16's first maps at 224 pixels then take 410 MB. Batches of 4 to 128 images were at most 9 % faster
    (VGG16, ResNet-18, EfficientNet-Lite2, bfloat16). CUDA needs larger ones: 128 at 224 pixels, more of smaller images
    and fewer of larger ones (not measured).
    """
    if device.type != "cuda":
        return 32
    return min(CHUNK, max(32, 2 ** int(math.log2(128 * (224 / image_size) ** 2))))


class FrozenPart(NamedTuple):
    forward: Callable[[torch.Tensor], torch.Tensor]  # (N, 3, H, W) float32 in [0, 1] on `device` -> (N, ...) float
    device: torch.device
    key: Mapping  # plain values on which features depend besides the image: weights, precision, device type ...
    about: str = ""  # in words


class Features(NamedTuple):
    array: np.ndarray  # (R, ...), memory-mapped
    rows: np.ndarray  # the row of each view of each image, (V, N) int64


def compute_features(
    frozen_part: FrozenPart,
    pixels: np.ndarray,
    digests: Sequence[str],
    indices: np.ndarray,
    views: Sequence[tuple[np.ndarray, ...]],
    augmentation: Augmentation,
    preprocessing: Mapping,
    folder: str | Path,
) -> Features:
    """Features of N images in V views. Those that are stored are read, whichever split or run computed them.

    Args:
        pixels, digests: of all M images, (M, H, W, 3) uint8 and M strings.
        indices: the images that are wanted, (N,) int64.
        views: for each view the parameters of the M images for each augmentation step; () is the image as it is.
        preprocessing: plain values on which pixels depend besides the image.
        folder: of cached arrays.

    Raises:
        ArgumentError: the folder cannot be written (`cache_dir`); a step changes the targets (`views`).
        UserError: features are not finite; they are not stored.
    """
    key: dict = {"frozen_part": dict(frozen_part.key), "preprocessing": dict(preprocessing)}
    size = augmentation.image_size(pixels.shape[1]) if any(views) else pixels.shape[1]
    key |= {} if size == pixels.shape[1] else {"image_size": size}  # rows of a file have one shape
    batch = batch_size(size, frozen_part.device)
    key |= {} if batch == 32 else {"batch_size": batch}  # 32 is that of a CPU
    cached, device, rows = CachedArray(folder, "features", key, frozen_part.about), frozen_part.device, []
    steps = json.dumps(augmentation.key, sort_keys=True).encode()
    for view in views:

        def forward(positions: list[int], view: tuple[np.ndarray, ...] = view) -> tuple[np.ndarray, dict]:
            features = []
            for start in range(0, len(positions), batch):
                chosen = indices[positions[start : start + batch]]
                padded = np.resize(chosen, batch)
                parameters = tuple(torch.from_numpy(step[padded]).to(device) for step in view)
                images = torch.from_numpy(pixels[padded]).to(device)
                targets = torch.zeros(batch, dtype=torch.int64, device=device)
                prepared = prepare(Batch(images, targets, targets, parameters), augmentation)
                if prepared.targets is not targets:
                    reason = "an augmentation step changes the targets, so features cannot be stored"
                    raise ArgumentError("views", len(views), f"expected 0: {reason}.")
                outputs = frozen_part.forward(prepared.inputs)[: len(chosen)]
                if not outputs.isfinite().all():
                    way = "Look at its weights, or compute in another precision."
                    raise UserError(f"the features of the frozen part contain NaN or infinite values. {way}")
                features.append(outputs)
            return features_to_rows(torch.cat(features)), {}

        ids = [digests[n] + "".join(f" {_sha256(steps, step[n])}" for step in view) for n in indices]
        array, view_rows, _ = cached.get(ids, forward)
        rows.append(view_rows)
    return Features(array, np.stack(rows))


def _sha256(steps: bytes, parameters: np.ndarray) -> str:
    return hashlib.sha256(steps + parameters.tobytes()).hexdigest()[:16]
