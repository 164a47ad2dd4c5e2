"""Who is in which part: training, validation, test."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from transfer_learning.errors import UserError


def distinct(labels: np.ndarray, digests: Sequence[str]) -> np.ndarray:
    """Indices of one image of each content, (M,) int64, ascending. Content that stands under two labels is left out whole."""
    labels_of = {}
    for label, digest in zip(labels.tolist(), digests):
        labels_of.setdefault(digest, set()).add(label)
    first = {digest: index for index, digest in reversed(list(enumerate(digests)))}
    return np.array(sorted(index for digest, index in first.items() if len(labels_of[digest]) == 1), dtype=np.int64)


def split(
    labels: np.ndarray,
    digests: Sequence[str],
    class_names: Sequence[str],
    per_class: Mapping[str, int | float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Splits distinct images into disjoint parts, every class alike.

    The split follows from (seed, the images' bytes): the same images are split alike on every machine, wherever they lie and whatever
    they are called.

    Args:
        labels: class codes, (N,) int64.
        digests: what identifies each image's content, N different strings.
        class_names: C names, for messages.
        per_class: images of each class for each part, in order: a whole number is a count, a fraction is a share of the class.
        seed: another seed, another split.

    Returns:
        For each part the indices of its images, int64, classes mixed, in an order that follows from (seed, bytes) too.

    Raises:
        UserError: a class has fewer images than asked, or a part would be empty.
    """
    rank = [hashlib.sha256(f"{seed} {digest}".encode()).digest() for digest in digests]
    for part, n in per_class.items():
        if type(n) not in (int, float) or n <= 0 or (type(n) is float and n > 1):
            raise UserError(
                f"data.{part}_per_class={n}: expected a whole number of images, or a share of the class above 0 and at most 1."
            )
    parts = {part: [] for part in per_class}
    available = Counter(labels.tolist())
    for code, name in enumerate(class_names):
        counts = {part: int(n * available[code] + 1e-9) if isinstance(n, float) else n for part, n in per_class.items()}
        asked = ", ".join(f"data.{part}_per_class={n}" for part, n in per_class.items())
        if sum(counts.values()) > available[code]:
            raise UserError(
                f"class '{name}' has {available[code]} images, but {sum(counts.values())} are asked for ({asked}): "
                "ask for fewer, or for shares like 0.6."
            )
        if min(counts.values()) < 1:
            raise UserError(
                f"class '{name}' with {available[code]} images leaves a part empty ({asked}): every part needs at least one image."
            )
        ordered = sorted(np.flatnonzero(labels == code), key=rank.__getitem__)
        for part, count in counts.items():
            parts[part] += ordered[:count]
            del ordered[:count]
    return {part: np.array(sorted(indices, key=rank.__getitem__), dtype=np.int64) for part, indices in parts.items()}
