"""Classes of different sizes: sampling them equally often, or weighting their losses."""

import numpy as np


def balanced_draw(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draws N of N images with replacement, so that each class is drawn with the same probability.

    Args:
        labels: class codes, (N,) int64.

    Returns:
        Positions in `labels`, (N,) int64.
    """
    probabilities = 1 / np.bincount(labels)[labels]
    return generator.choice(len(labels), size=len(labels), p=probabilities / probabilities.sum())


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The weight of each class, (num_classes,) float32, such that the images of each class weigh the same together.

    It is N / (C * n) for the n of N images of a class, scikit-learn's "balanced", where C is the number of classes that
    have images; others have weight 0. The mean over images is 1. `labels` are class codes, (N,) int64.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)
