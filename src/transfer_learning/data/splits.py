"""Split strategies: which images train, which validate and which test."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
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
    machine, whatever their names and folders. Shares that add up to 1 use every image: what rounding leaves goes to the
    largest remainders.

    Args:
        train_per_class, val_per_class, test_per_class: a whole number is a count, a fraction is a share of the class.
        seed: of the split.
    """

    def __init__(
        self,
        train_per_class: PerClassSize = 1500,
        val_per_class: PerClassSize = 500,
        test_per_class: PerClassSize = 500,
        seed: NonNegativeInt = 0,
    ):
        self.sizes, self.seed = {"train": train_per_class, "val": val_per_class, "test": test_per_class}, seed

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64, classes mixed.

        Raises:
            ArgumentError: a class has fewer images than asked for, or a split would be empty.
        """
        rank = [hashlib.sha256(f"{self.seed} {digest}".encode()).digest() for digest in images.digests]
        splits: dict[str, list] = {split: [] for split in self.sizes}
        available = Counter(images.labels.tolist())
        for code, name in enumerate(images.class_names):
            counts = self._counts(available[code], name)
            ordered = sorted(np.flatnonzero(images.labels == code), key=rank.__getitem__)
            for split, count in counts.items():
                splits[split] += ordered[:count]
                del ordered[:count]
        return {split: np.array(sorted(indices, key=rank.__getitem__), np.int64) for split, indices in splits.items()}

    def _counts(self, available: int, class_name: str) -> dict[str, int]:
        sizes, shares = self.sizes, all(isinstance(size, float) for size in self.sizes.values())
        counts = {split: int(n * available + 1e-9) if isinstance(n, float) else n for split, n in sizes.items()}
        if shares and abs(sum(sizes.values()) - 1) < 1e-9:
            remainders = sorted(counts, key=lambda split: counts[split] - sizes[split] * available)
            for split in remainders[: available - sum(counts.values())]:
                counts[split] += 1
        asked = ", ".join(f"{split}_per_class={size}" for split, size in sizes.items())
        if sum(counts.values()) > available:
            reason = f"class '{class_name}' has {available} images, but {sum(counts.values())} are asked for ({asked})"
            raise ArgumentError("train_per_class", sizes["train"], f"{reason}: ask for fewer, or for shares.")
        if empty := next((split for split, count in counts.items() if count < 1), None):
            reason = f"class '{class_name}' with {available} images leaves the {empty} split empty ({asked})"
            raise ArgumentError(f"{empty}_per_class", sizes[empty], f"{reason}; it needs at least one image.")
        return counts


def distinct(labels: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """Indices of one image of each content, (M,) int64, ascending; none of a content that has two labels."""
    labels_of: dict[str, set] = {}
    for label, digest in zip(labels.tolist(), digests):
        labels_of.setdefault(digest, set()).add(label)
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    return np.array(sorted(index for digest, index in first.items() if len(labels_of[digest]) == 1), dtype=np.int64)
