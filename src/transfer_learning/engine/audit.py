"""An audit of labelled images, from their frozen features: duplicates, suspect labels and unusual images."""

from dataclasses import asdict

import numpy as np
import torch

from transfer_learning.data.batch import features_from_rows
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.features import FrozenPart, compute_features
from transfer_learning.engine.label_errors import out_of_fold, suspect_labels
from transfer_learning.engine.near_duplicates import groups, near_duplicates, nearest, thumbnails
from transfer_learning.engine.unusual_images import odd_sizes, outliers, read_headers, summary, unusable
from transfer_learning.reporting.audit import KINDS, Audit, Finding

BLOCK = 256  # images whose feature maps are pooled at once
RATHER_KEPT = ("", "train", "val", "test")  # of a pair, the image whose split is later here


def audit(data: ImageDataModule, frozen_part: FrozenPart) -> Audit:
    """Audits all images of a data module that can be read, whether or not a split has them.

    Features that are stored are read, others are computed and stored. Of identical files, one is compared with
    other images. Raises UserError as `data.setup` and `compute_features` do.
    """
    data.setup()
    images, names = data.images, data.images.class_names
    splits = [""] * len(images.names)
    for split, indices in data.splits.items():
        for index in indices:
            splits[index] = split

    def pair(kind: str, a: int, b: int, score: float, detail: str = "") -> Finding:
        kept, left_out = sorted((a, b), key=lambda n: (-RATHER_KEPT.index(splits[n]), n))
        labels = "labels differ" if images.labels[a] != images.labels[b] else ""
        return Finding(kind, left_out, score, ", ".join(filter(None, (detail, labels))), kept)

    first: dict[str, int] = {}
    readable = sorted(data.readable.tolist(), key=lambda n: splits[n] == "")
    copies = [(first[images.digests[n]], n) for n in readable if first.setdefault(images.digests[n], n) != n]
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
    for kind, unusual in {"outlier": outliers(neighbours), **unusable(small), **sizes}.items():
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
        pooled.append(features.mean(dim=(2, 3)) if features.ndim == 4 else features.flatten(1))
    return torch.cat(pooled).numpy()
