"""An audit of labelled images, from their frozen features: duplicates, suspect labels and unusual images."""

from dataclasses import asdict
from functools import partial

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.batch import features_from_rows
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart, compute_features
from transfer_learning.data.images import Images
from transfer_learning.data.splits import SPLITS, SplitStrategy, keeps_splits
from transfer_learning.engine.label_errors import out_of_fold, suspect_labels
from transfer_learning.engine.near_duplicates import groups, near_duplicates, nearest, thumbnails
from transfer_learning.engine.unusual_images import flat_dark_or_bright, odd_sizes, outliers, read_headers, summary
from transfer_learning.reporting.audit import KINDS, Audit, Finding
from transfer_learning.utilities.errors import ArgumentError

BLOCK = 256  # images whose feature maps are pooled at once
RATHER_KEPT = ("", "train", "val", "test")  # of a pair, the image whose split is later here


class WherePossible:
    """A split strategy for an audit, which needs no splits: that of `split` if there are enough images for it.

    If there are too few, all stay in their given splits, or are training images.

    Args:
        split: the other strategy.
    """

    def __init__(self, split: SplitStrategy):
        self.split = split
        self.keeps_splits = partial(keeps_splits, split)

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """As the other strategy; logs that images are too few, and raises ArgumentError for that if there are none."""
        try:
            return self.split(images)
        except ArgumentError as error:
            if not images.names:
                raise
            rank_zero_info(f"left undivided, in given splits or else as training images: {error}")
            given = images.splits if self.keeps_splits(images) else None
            of_image = np.array(given or ["train"] * len(images.names))
            return {split: np.flatnonzero(of_image == split) for split in SPLITS}


def audit(data: ImageDataModule, frozen_part: FrozenPart) -> Audit:
    """Audits all images of a data module that can be read, whether or not a split has them.

    Features that are stored are read, others are computed and stored. Of identical files, one is compared with
    other images. Raises UserError as `data.setup` and `compute_features` do.
    """
    data.setup()
    images, names = data.images, data.images.class_names
    given = images.splits if keeps_splits(data.split, images) else None
    splits = [split or "" for split in given or [None] * len(images.names)]  # of images that training leaves out, too
    for split, indices in data.splits.items():
        for index in indices:
            splits[index] = split

    def pair(kind: str, a: int, b: int, score: float, detail: str = "") -> Finding:
        kept, left_out = sorted((a, b), key=lambda n: (-RATHER_KEPT.index(splits[n]), n))
        labels = "labels differ" if images.labels[a] != images.labels[b] else ""
        return Finding(kind, left_out, score, ", ".join(filter(None, (detail, labels))), kept)

    kept_last = sorted(data.readable.tolist(), key=lambda n: (RATHER_KEPT.index(splits[n]), -n))
    first = {images.digests[n]: n for n in kept_last}
    copies = [(first[images.digests[n]], n) for n in data.readable.tolist() if first[images.digests[n]] != n]
    rows = np.array(sorted(first.values()), dtype=np.int64)  # of the images that are compared
    headers, small = read_headers(images, rows), thumbnails(data.pixels, rows)
    features, labels = pooled_features(data, frozen_part, rows), images.labels[rows]
    neighbours = nearest(features)
    pairs = near_duplicates(neighbours, small)
    group = groups(pairs, len(rows), images.take(rows).groups)
    probabilities = out_of_fold(features, labels, group, len(names))

    found = [pair("identical", *each, score=1.0) for each in copies]
    for (a, b), cosine, mirrored in zip(rows[pairs.indices].tolist(), pairs.cosines, pairs.mirrored):
        found.append(pair("near-duplicate", a, b, float(cosine), "mirrored" if mirrored else ""))
    for row, code, given, likely in zip(*suspect_labels(probabilities, labels)):
        found.append(Finding("label", int(rows[row]), float(given - likely), f"looks like {names[code]}"))
    sizes = odd_sizes(headers, data.preprocessing.image_size)
    for kind, unusual in {"outlier": outliers(neighbours), **flat_dark_or_bright(small), **sizes}.items():
        for row, score in zip(*unusual):
            size = f"{headers[row].width} × {headers[row].height}" if kind in sizes else ""
            found.append(Finding(kind, int(rows[row]), float(score), size))
    classes = [names[label] for label in images.labels]
    result = Audit(images.names, images.digests, splits, classes, found, summary(headers))
    found.sort(key=lambda each: (list(KINDS).index(each.kind), not result.is_across(each)))
    return result


def pooled_features(data: ImageDataModule, frozen_part: FrozenPart, indices: np.ndarray) -> np.ndarray:
    """Frozen features of the images at (N,) indices as they are, maps as their means: (N, C) float32."""
    key, digests = asdict(data.preprocessing), data.images.digests
    stored = compute_features(frozen_part, data.pixels, digests, indices, [()], data.augmentation, key, data.cache_dir)
    pooled = []
    for start in range(0, len(indices), BLOCK):
        features = features_from_rows(torch.from_numpy(stored.array[stored.rows[0, start : start + BLOCK]])).float()
        pooled.append(_pooled(features))
    return torch.cat(pooled).numpy()


def _pooled(features: torch.Tensor) -> torch.Tensor:
    """(N, C): means over places of maps (N, C, h, w), those of Swin (N, h, w, C), or tokens (N, T, C)."""
    if features.ndim == 4:
        has_channels_last = features.shape[1] == features.shape[2] != features.shape[3]
        return features.mean(dim=(1, 2) if has_channels_last else (2, 3))
    return features.mean(dim=1) if features.ndim == 3 else features.flatten(1)
