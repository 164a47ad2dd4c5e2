"""Split strategies: which images train, which validate and which test."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt

from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.validation import validated

# images without duplicates -> {"train", "val", "test": (N,) int64 indices into them}; disjoint, in any order
SplitStrategy = Callable[[Images], dict[str, np.ndarray]]
PerClassSize = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]


@validated
class PerClass:
    """Takes the same number, or the same share, of every class.

    The split is a function of the seed and the images' bytes: the same images are split in the same way on every
    machine, whatever their names and folders.

    Args:
        train_per_class, val_per_class, test_per_class: a whole number is a count, a fraction is a share of the class.
            Shares that add up to 1 use every image: what rounding leaves goes to the largest remainders.
        seed: of the split.
    """

    def __init__(
        self,
        train_per_class: PerClassSize = 1500,
        val_per_class: PerClassSize = 500,
        test_per_class: PerClassSize = 500,
        seed: NonNegativeInt = 0,
    ):
        self.sizes = {"train": train_per_class, "val": val_per_class, "test": test_per_class}
        self.seed = seed

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64, classes mixed.

        Raises:
            ArgumentError: a class has fewer images than asked for, or a split would be empty.
        """
        rank = [hashlib.sha256(f"{self.seed} {digest}".encode()).digest() for digest in images.digests]
        splits: dict[str, list] = {split: [] for split in self.sizes}
        available = Counter(images.labels.tolist())
        for code, name in enumerate(images.class_names):
            counts = _counts(self.sizes, available[code])
            self._check(name, available[code], counts)
            ordered = sorted(np.flatnonzero(images.labels == code), key=rank.__getitem__)
            for split, count in counts.items():
                splits[split] += ordered[:count]
                del ordered[:count]
        return {split: np.array(sorted(indices, key=rank.__getitem__), np.int64) for split, indices in splits.items()}

    def _check(self, class_name: str, available: int, counts: Mapping[str, int]) -> None:
        asked = ", ".join(f"{split}_per_class={size}" for split, size in self.sizes.items())
        if sum(counts.values()) > available:
            reason = f"class '{class_name}' has {available} images, but {sum(counts.values())} are asked for ({asked})"
            raise ArgumentError("train_per_class", self.sizes["train"], f"{reason}: ask for fewer, or for shares.")
        for split, count in counts.items():
            if count < 1:
                reason = f"class '{class_name}' with {available} images leaves the {split} split empty ({asked})"
                raise ArgumentError(f"{split}_per_class", self.sizes[split], f"{reason}; it needs at least one image.")


def _counts(sizes: Mapping[str, int | float], available: int) -> dict[str, int]:
    """Images of a class in each split."""
    counts = {split: int(n * available + 1e-9) if isinstance(n, float) else n for split, n in sizes.items()}
    if all(isinstance(n, float) for n in sizes.values()) and abs(sum(sizes.values()) - 1) < 1e-9:
        remainders = {split: n * available - counts[split] for split, n in sizes.items()}
        for split in sorted(remainders, key=remainders.__getitem__, reverse=True)[: available - sum(counts.values())]:
            counts[split] += 1
    return counts


def distinct(labels: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """Indices of one image of each content, (M,) int64, ascending; none of a content that has two labels."""
    labels_of: dict[str, set] = {}
    for label, digest in zip(labels.tolist(), digests):
        labels_of.setdefault(digest, set()).add(label)
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    return np.array(sorted(index for digest, index in first.items() if len(labels_of[digest]) == 1), dtype=np.int64)
