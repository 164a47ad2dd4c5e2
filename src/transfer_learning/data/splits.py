"""Split strategies: which images train, which validate and which test."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.folds import assign_groups
from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.text import some
from transfer_learning.utilities.validation import validated

SPLITS = ("train", "val", "test")
SPLIT_NAME = re.compile(r"(train|val|test)(id|ing|idation)?[ _-]?(data|set|images|split)?\d*", re.IGNORECASE)
# images without duplicates -> {"train", "val", "test": (N,) int64 indices into them}; disjoint, in any order
SplitStrategy = Callable[[Images], dict[str, np.ndarray]]
PerClassSize = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)]


def split_named(name: str) -> str | None:
    """The split that a folder's name or a table's cell stands for: `validation` -> "val", `cat` -> None."""
    found = SPLIT_NAME.fullmatch(name.strip())
    return found[1].lower() if found else None


@validated
class PerClass:
    """Takes the same number, or the same share, of every class, whatever splits the source knows.

    The split is a function of the seed and the images' bytes: the same images are split in the same way on every
    machine, whatever their names and folders. Shares that add up to 1 use every image: what rounding leaves goes to the
    largest remainders. If the source knows groups, each group is in one split, and the sizes are met as closely as that
    allows.

    Args:
        train_per_class, val_per_class, test_per_class: a whole number is a count, a fraction is a share of the class.
            For training, None takes what the others leave.
        seed: of the split.
    """

    def __init__(
        self,
        train_per_class: PerClassSize | None = 1500,
        val_per_class: PerClassSize = 500,
        test_per_class: PerClassSize = 500,
        seed: NonNegativeInt = 0,
    ):
        self.sizes, self.seed = {"train": train_per_class, "val": val_per_class, "test": test_per_class}, seed

    def keeps_splits(self, images: Images) -> bool:
        """Whether the splits that the source knows are kept: never."""
        return False

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64, classes mixed.

        Raises:
            ArgumentError: a class has fewer images than asked for, or a split would be empty.
        """
        return _divide(images, self.sizes, self.seed)


@validated
class Given:
    """Keeps the splits that the source knows, those of folders such as `train` and `test` or of a table's column.

    Where there are no validation or no test images, they are taken from the training images as `PerClass` does.

    Args:
        train_per_class, val_per_class, test_per_class, seed: see `PerClass`. Splits that are given are used whole, but
            a number or a share for training takes so many of the training images.
    """

    def __init__(
        self,
        train_per_class: PerClassSize | None = None,
        val_per_class: PerClassSize = 0.2,
        test_per_class: PerClassSize = 0.2,
        seed: NonNegativeInt = 0,
    ):
        self.sizes, self.seed = {"train": train_per_class, "val": val_per_class, "test": test_per_class}, seed

    def keeps_splits(self, images: Images) -> bool:
        """Whether the splits that the source knows are kept: always."""
        return True

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64, classes mixed.

        Raises:
            ArgumentError: the source knows no splits, or only those of some images; as `PerClass` for the training
                images.
        """
        given = {split: _rows(images, split) for split in SPLITS}
        if not has_splits(images):
            found = f"the source knows no splits ({', '.join(f'{len(rows)} {name}' for name, rows in given.items())})"
            expected = "expected training images, and validation or test images, in folders or a column of such names"
            raise ArgumentError("split", "folders", f"{found}; {expected}.")
        if unknown := [images.names[n] for n, split in enumerate(images.splits or ()) if split is None]:
            raise ArgumentError("split", "folders", f"no split is known for {some(unknown)}; move them, or split anew.")
        rank = _ranks(images, self.seed)
        splits = {split: np.array(sorted(rows, key=rank.__getitem__), np.int64) for split, rows in given.items()}
        missing = [split for split in SPLITS[1:] if not len(splits[split])]
        if missing or self.sizes["train"] is not None:
            if missing:
                rank_zero_info(
                    f"no {' and no '.join(missing)} images are given: they are taken from the training images"
                )
            train = splits["train"]
            sizes = {split: size for split, size in self.sizes.items() if split == "train" or split in missing}
            splits |= {split: train[rows] for split, rows in _divide(images.take(train), sizes, self.seed).items()}
        if images.groups:
            _name_divided_groups(images.groups, splits)
        return splits


@validated
class GivenOrPerClass:
    """`Given` if the source knows training images and validation or test images, else `PerClass`."""

    def __init__(
        self,
        train_per_class: PerClassSize | None = None,
        val_per_class: PerClassSize = 0.2,
        test_per_class: PerClassSize = 0.2,
        seed: NonNegativeInt = 0,
    ):
        arguments = train_per_class, val_per_class, test_per_class, seed
        self.given, self.per_class = Given(*arguments), PerClass(*arguments)

    def keeps_splits(self, images: Images) -> bool:
        """Whether the splits that the source knows are kept."""
        return has_splits(images)

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64. Raises ArgumentError as the two do."""
        return (self.given if has_splits(images) else self.per_class)(images)


def has_splits(images: Images) -> bool:
    """Whether the source knows training images, and validation or test images."""
    known = set(images.splits or ())
    return "train" in known and len(known - {None}) > 1


def _rows(images: Images, split: str) -> np.ndarray:
    return np.flatnonzero([each == split for each in images.splits or ()])


def _ranks(images: Images, seed: int) -> list[bytes]:
    """An order of the images that is a function of the seed and of their bytes."""
    return [hashlib.sha256(f"{seed} {digest}".encode()).digest() for digest in images.digests]


def _divide(images: Images, sizes: Mapping[str, int | float | None], seed: int) -> dict[str, np.ndarray]:
    """Splits of these sizes per class; in the order of `sizes`."""
    rank = _ranks(images, seed)
    available = np.bincount(images.labels, minlength=len(images.class_names)).tolist()
    counts = [_counts(sizes, number, name) for number, name in zip(available, images.class_names)]
    if images.groups:
        return _divide_groups(images, sizes, counts, rank)
    splits: dict[str, list] = {split: [] for split in sizes}
    for code, of_class in enumerate(counts):
        ordered = sorted(np.flatnonzero(images.labels == code), key=rank.__getitem__)
        for split, count in of_class.items():
            splits[split] += ordered[:count]
            del ordered[:count]
    return {split: np.array(sorted(indices, key=rank.__getitem__), np.int64) for split, indices in splits.items()}


def _counts(sizes: Mapping[str, int | float | None], available: int, class_name: str) -> dict[str, int]:
    """The number of images of a class in each split."""
    asked = ", ".join(f"{split}_per_class={size}" for split, size in sizes.items() if size is not None)
    given = [size for size in sizes.values() if size is not None]
    shares = all(isinstance(size, float) for size in given)
    rest = (
        1 - sum(given) if shares else available - sum(int(n * available) if isinstance(n, float) else n for n in given)
    )
    filled = {split: rest if size is None else size for split, size in sizes.items()}
    counts = {split: int(n * available + 1e-9) if isinstance(n, float) else n for split, n in filled.items()}
    if shares and abs(sum(filled.values()) - 1) < 1e-9:
        remainders = sorted(counts, key=lambda split: counts[split] - filled[split] * available)
        for split in remainders[: available - sum(counts.values())]:
            counts[split] += 1
    if sum(counts.values()) > available:
        reason = f"class '{class_name}' has {available} images, but {sum(counts.values())} are asked for ({asked})"
        raise ArgumentError("train_per_class", sizes["train"], f"{reason}: ask for fewer, or for shares.")
    if empty := next((split for split, count in counts.items() if count < 1), None):
        reason = f"class '{class_name}' with {available} images leaves the {empty} split empty ({asked})"
        raise ArgumentError(f"{empty}_per_class", sizes[empty], f"{reason}; it needs at least one image.")
    return counts


def _divide_groups(
    images: Images, sizes: Mapping[str, int | float | None], counts: Sequence[Mapping[str, int]], rank: Sequence[bytes]
) -> dict[str, np.ndarray]:
    """Splits of about `counts`, for each class, that divide no group."""
    targets = np.array([[of_class[split] for of_class in counts] for split in sizes], dtype=float)
    available = np.bincount(images.labels, minlength=len(counts))
    bins_targets = np.vstack([targets, available - targets.sum(axis=0)])  # the last bin is unused
    order = np.argsort(sorted(range(len(rank)), key=rank.__getitem__))
    bins = assign_groups(images.labels, images.groups, bins_targets, order)
    ordered = np.argsort(order)
    splits = {split: ordered[bins[ordered] == number] for number, split in enumerate(sizes)}
    asked = zip(splits.items(), targets.sum(axis=1))
    texts = [f"{split} {len(rows):,} ({wanted:,.0f} asked for)" for (split, rows), wanted in asked]
    number_of_groups = len(set(images.groups or ()))
    rank_zero_info(f"{number_of_groups:,} groups, each in one split: {', '.join(texts)}")
    for split, rows in splits.items():
        if not len(rows):
            reason = f"{number_of_groups} groups cannot be divided so that the {split} split has one"
            raise ArgumentError(f"{split}_per_class", sizes[split], f"{reason}; ask for more images in it.")
    return splits


def _name_divided_groups(groups: Sequence[str], splits: Mapping[str, np.ndarray]) -> None:
    found: dict[str, set[str]] = {}
    for split, rows in splits.items():
        for row in rows:
            found.setdefault(groups[row], set()).add(split)
    divided = sorted(group for group, of_group in found.items() if len(of_group) > 1)
    if divided:
        rank_zero_info(f"{len(divided):,} groups have images in several of the given splits: {some(divided)}")
