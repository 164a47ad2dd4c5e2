"""Metrics of a classifier's probabilities on labelled images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional import classification

from transfer_learning.reporting.intervals import wilson_interval

BINS = 15  # of the calibration error and the reliability diagram


def evaluate(
    probabilities: np.ndarray, labels: np.ndarray, losses: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Metrics as plain values; None for one that the labels do not define.

    Means over classes are over classes that have images. Precision, recall and F1 of 0 / 0 are 0, as in scikit-learn.
    The calibration error is the expected one of the most probable class, in 15 bins of equal width.

    Args:
        probabilities: (N, C) float in [0, 1], N > 0.
        labels: class codes, (N,) int64 in [0, C).
        losses: of each image, (N,) float.
        class_names: C names.
    """
    p, codes, count = torch.from_numpy(probabilities), torch.from_numpy(labels), len(class_names)
    settings: Any = dict(num_classes=count, average="none")
    support = torch.bincount(codes, minlength=count)
    by_class = {
        "precision": classification.multiclass_precision(p, codes, **settings),
        "recall": classification.multiclass_recall(p, codes, **settings),
        "f1": classification.multiclass_f1_score(p, codes, **settings),
        "auroc": torch.stack([_auroc(p[:, code], codes == code) for code in range(count)]),
    }
    present = support > 0
    correct = int((p.argmax(dim=1) == codes).sum())
    low, high = wilson_interval(correct, len(codes))
    mean = {key: _number(values[present].nanmean()) for key, values in by_class.items()}
    classes = {
        name: {**{key: _number(values[code]) for key, values in by_class.items()}, "support": int(support[code])}
        for code, name in enumerate(class_names)
    }
    return {
        "images": len(codes),
        "accuracy": correct / len(codes),
        "accuracy_low": low,
        "accuracy_high": high,
        "loss": float(losses.mean()),
        "balanced_accuracy": mean["recall"],
        "f1_macro": mean["f1"],
        "auroc": mean["auroc"],
        "calibration_error": calibration_error(probabilities, labels),
        "classes": classes,
    }


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error (Guo et al. 2017) of the most probable class; arguments as of `evaluate`.

    Sums are in float64: torchmetrics has float32, which is too coarse for some hundred thousand images.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((BINS * confidence).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, right) - np.bincount(bins, confidence)
    return float(np.abs(gaps).sum() / len(labels))


def _auroc(scores: torch.Tensor, is_class: torch.Tensor) -> torch.Tensor:
    """Of one class against the others; NaN if one side has no images."""
    if is_class.all() or not is_class.any():
        return torch.tensor(torch.nan)
    return classification.binary_auroc(scores, is_class.long())


def _number(value: torch.Tensor) -> float | None:
    return None if value.isnan() else value.item()
