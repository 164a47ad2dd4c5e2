"""Suspect labels: images that a linear classifier, which was fitted to other images, gives another class."""

import warnings
from typing import NamedTuple

import numpy as np

FOLDS = 5
MOST_FEATURES = 512  # the first principal components of more


class Suspects(NamedTuple):
    """S images whose label is suspect, the most suspect first."""

    indices: np.ndarray  # (S,) int64
    classes: np.ndarray  # the class that each looks like, (S,) int64
    given: np.ndarray  # the out-of-fold probability of the given class, (S,) float
    likely: np.ndarray  # that of the class that it looks like, (S,) float


def out_of_fold(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """Predicts each image by linear discriminant analysis that was fitted to others: probabilities (N, C) in [0, 1].

    Args:
        features: (N, D) float.
        labels: class codes, (N,) int64 in [0, C).
        groups: (N,) int; the images of a group are predicted together, so that no near-duplicate gives a class away.

    Rows of images whose class is in no other fold are NaN.
    """
    # scikit-learn takes a second to import.
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import StratifiedGroupKFold

    probabilities = np.full((len(labels), num_classes), np.nan)
    folds = min(FOLDS, int(np.bincount(labels).max()), len(np.unique(groups)))
    if folds < 2:
        return probabilities
    rows = features
    if rows.shape[1] > MOST_FEATURES:
        rows = PCA(min(MOST_FEATURES, len(rows)), random_state=0).fit_transform(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that have fewer images than there are folds
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
        for others, fold in splitter.split(rows, labels, groups):
            known = np.unique(labels[others])
            if len(known) > 1 and len(others) > len(known):
                model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(rows[others], labels[others])
                probabilities[np.ix_(fold, known)] = model.predict_proba(rows[fold])
                probabilities[fold[~np.isin(labels[fold], known)]] = np.nan
    return probabilities


def suspect_labels(probabilities: np.ndarray, labels: np.ndarray) -> Suspects:
    """Confident learning (Northcutt, Jiang and Chuang: Confident Learning, JAIR 70, 2021).

    A class's threshold is the mean probability of that class over the images with its label. An image counts for the
    most probable of the classes whose threshold it reaches; if that is not its label, the label is suspect. Sorted by
    the probability of the label minus that of the other class.

    Args:
        probabilities: out-of-fold, (N, C) float; a row or a column of NaN judges nothing.
        labels: class codes, (N,) int64 in [0, C).
    """
    given = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    is_judged = ~np.isnan(given)
    counts, sums = (
        np.bincount(labels[is_judged], weights, probabilities.shape[1]) for weights in (None, given[is_judged])
    )
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1)
    classes, likely = reached.argmax(axis=1), reached.max(axis=1)
    found = np.flatnonzero(is_judged & (likely >= 0) & (classes != labels))
    found = found[np.argsort((given - likely)[found], kind="stable")]
    return Suspects(found, classes[found], given[found], likely[found])
