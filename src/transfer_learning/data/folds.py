"""Folds of a cross-validation, shares of the training images, and groups that stay together."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.text import some


def ranks(digests: Sequence[str], salt: str) -> np.ndarray:
    """The rank of each image in a random order that is a function of the images' bytes and a salt, (N,) int64."""
    hashes = [hashlib.sha256(f"{salt} {digest}".encode()).hexdigest() for digest in digests]
    return np.argsort(np.argsort(hashes, kind="stable"))


def group_codes(groups: Sequence[str] | np.ndarray | None, count: int) -> np.ndarray:
    """The group of each image as a number, (count,) int64 in [0, G); without groups each image is one of its own."""
    return np.arange(count, dtype=np.int64) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]


def first_ranks(group: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The lowest rank in each group, (G,) int64, of the groups (N,) and the ranks (N,) of N images."""
    first = np.full(group.max(initial=-1) + 1, len(group))
    np.minimum.at(first, group, order)
    return first


def assign_groups(
    labels: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    targets: np.ndarray,
    order: np.ndarray,
    required: np.ndarray | None = None,
) -> np.ndarray:
    """Assigns each group to one of B bins, such as splits or folds, so that class counts come close to the targets.

    Greedy: the largest group first, each to the bin in which the squared error shrinks most. The errors of a class are
    divided by its size, and the total sizes of the bins count like one more class. Without groups, bins with equal
    targets differ by at most one image of each class.

    Args:
        labels: class codes, (N,) int64 in [0, C).
        groups: the group of each image, (N,); None if each image is a group of its own.
        targets: the wanted number of images of each class in each bin, (B, C) float; columns add up to the class sizes.
        order: ranks of the images, (N,) int, different ones; among groups of equal size, that of the lowest is first.
        required: bins that get at least one group of each class of which they should have images, as far as there are
            enough groups, (B,) bool; None: none.

    Returns:
        The bin of each image, (N,) int64 in [0, B).
    """
    group, columns = group_codes(groups, len(labels)), targets.shape[1] + 1  # the last column is that of all images
    codes = np.concatenate([group * columns + labels, group * columns + columns - 1])
    keys, counts = np.unique(codes, return_counts=True)
    owner, column = np.divmod(keys, columns)
    missing = np.column_stack([targets, targets.sum(axis=1)]).astype(float)  # what each bin still lacks
    weights = counts / np.bincount(column, counts, columns)[column] ** 2
    first = first_ranks(group, order)
    chosen, starts = np.empty(len(first), np.int64), np.searchsorted(owner, np.arange(len(first) + 1))
    for number in np.lexsort((first, -np.bincount(owner, counts * weights))):
        own = slice(starts[number], starts[number + 1])
        chosen[number] = (missing[:, column[own]] * weights[own]).sum(axis=1).argmax()
        missing[chosen[number], column[own]] -= counts[own]
    if required is not None:
        of_class = column < columns - 1
        _fill_empty(chosen, owner[of_class], column[of_class], (targets > 0) & required[:, None], first)
    return chosen[group]


def _fill_empty(
    chosen: np.ndarray, owner: np.ndarray, column: np.ndarray, required: np.ndarray, first: np.ndarray
) -> None:
    """Gives each bin that should have images of a class a group of it, as long as the bin that it had keeps another.

    Args:
        chosen: the bin of each group, (G,) int64, which is changed.
        owner, column: the group and the class of each pair of a group and a class that it has, (P,) int64.
        required: whether a bin should have images of a class, (B, C) bool.
        first: the lowest rank in each group, (G,) int64. Of equally good groups, the one with the lowest moves.
    """
    present = np.zeros(required.shape, np.int64)  # groups of each class in each bin
    np.add.at(present, (chosen[owner], column), 1)
    for bin_, code in np.argwhere(required & (present == 0)):
        if present[bin_, code]:
            continue  # a group of another class has brought it
        candidates = owner[column == code]
        for group in candidates[np.lexsort((first[candidates], -present[chosen[candidates], code]))]:
            classes, old = column[owner == group], chosen[group]
            if ((present[old, classes] > 1) | ~required[old, classes]).all():
                present[old, classes] -= 1
                present[bin_, classes] += 1
                chosen[group] = bin_
                break


def check_fold(folds: int, fold: int) -> None:
    """Raises ArgumentError unless `fold` is one of at least two folds, or both are 0: no cross-validation."""
    if folds == 1:
        raise ArgumentError("folds", folds, "expected 2 or more, or 0: no cross-validation.")
    if fold >= max(folds, 1):
        way = f"expected 0 to {folds - 1}." if folds else "expected 0, or the number of folds too, such as folds=5."
        raise ArgumentError("fold", fold, way)


def cross_validation(images: Images, splits: Mapping[str, np.ndarray], folds: int, fold: int) -> dict[str, np.ndarray]:
    """The splits of a fold: of the images for training and validation, the fold validates and the others train.

    The folds are stratified: they differ by at most one image of each class. If the images have groups, each group is
    in one fold, and classes are divided as evenly as that allows. They are a function of the images' bytes.

    Args:
        images: all images.
        splits: "train", "val" and others, which stay as they are: (N,) int64 indices into `images`.
        folds, fold: the number of folds, and the one that validates; without folds nothing changes.

    Raises:
        ArgumentError: as `check_fold`; a class has fewer images, or groups, than there are folds.
    """
    check_fold(folds, fold)
    if not folds:
        return dict(splits)
    indices = np.concatenate([splits["train"], splits["val"]])
    pool = images.take(indices)
    order, group = ranks(pool.digests, "fold"), group_codes(pool.groups, len(indices))
    sizes = np.bincount(np.unique(np.stack([pool.labels, group]), axis=1)[0], minlength=len(images.class_names))
    if few := [
        f"'{images.class_names[code]}' ({sizes[code]})" for code in np.flatnonzero((sizes > 0) & (sizes < folds))
    ]:
        unit = "groups" if pool.groups else "images"
        reason = f"fewer {unit} for training and validation than there are folds: class {some(few, 1)}"
        raise ArgumentError("folds", folds, f"{reason}. Take fewer folds, or more {unit}.")
    targets = np.bincount(pool.labels, minlength=len(images.class_names)) / folds
    bins = assign_groups(pool.labels, pool.groups, np.tile(targets, (folds, 1)), order, np.ones(folds, bool))
    mixed = np.argsort(order)
    validates = bins[mixed] == fold
    return {**splits, "train": indices[mixed[~validates]], "val": indices[mixed[validates]]}


def subset(images: Images, indices: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of each class, at least one image, in the order of `indices`; a function of the seed and images' bytes.

    A smaller share of the same images is part of a larger one. If the images have groups, whole groups are taken, and
    shares are met as closely as that allows.

    Args:
        images: all images.
        indices: the images that are shared out, (N,) int64 indices into `images`.
        share: in (0, 1]; 1 takes them all.
    """
    if share == 1:
        return indices
    pool = images.take(indices)
    group, order = group_codes(pool.groups, len(indices)), ranks(pool.digests, f"share {seed}")
    first = first_ranks(group, order)
    taken = []
    for code in np.unique(pool.labels):
        found, counts = np.unique(first[group[pool.labels == code]], return_counts=True)  # groups in their order
        taken.append(found[: np.abs(counts.cumsum() - share * counts.sum()).argmin() + 1])
    return indices[np.isin(first[group], np.concatenate(taken))]
