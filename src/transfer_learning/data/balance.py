"""Classes of different sizes: sampling them equally often, or weighting their losses."""

import numpy as np


def balanced_draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws N of N images with replacement, so that each class is drawn with the same probability.

    Args:
        labels: class codes, (N,) int64.

    Returns:
        Positions in `labels`, (N,) int64.
    """
    counts = np.bincount(labels)
    probabilities = 1 / counts[labels]
    return rng.choice(len(labels), size=len(labels), p=probabilities / probabilities.sum())


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """A weight for each class, (num_classes,) float32, whose sums over the images of each class are equal.

    It is N / (C * n_c), scikit-learn's "balanced", so the mean over N images of C classes is 1; 0 for a class without
    images. `labels` are class codes, (N,) int64.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0).astype(np.float32)
