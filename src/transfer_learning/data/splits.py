"""Split strategies: which images train, which validate and which test."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import NonNegativeInt
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.folds import assign_groups, ranks
from transfer_learning.data.images import Images
from transfer_learning.data.split_sizes import PerClassSize, counts_of_class
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.text import some
from transfer_learning.utilities.validation import validated

SPLITS = ("train", "val", "test")
SPLIT_NAME = re.compile(r"(train|val|test)(id|ing|idation)?[ _-]?(data(set)?|set|images|imgs|split)?\d*", re.IGNORECASE)
# images that may be used -> {"train", "val", "test": (N,) int64 indices into them}; disjoint, in any order. It is
# called before images are decoded, and again without those that cannot be read. A strategy that keeps given splits has
# a method `keeps_splits(images)`, which is asked first; without it, all are split anew.
SplitStrategy = Callable[[Images], dict[str, np.ndarray]]


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
        train_per_class: PerClassSize | None = None,
        val_per_class: PerClassSize = 0.2,
        test_per_class: PerClassSize = 0.2,
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
        return _divide_per_class(images, self.sizes, self.seed)


class Given(PerClass):
    """Keeps the splits that the source knows, those of folders such as `train` and `test` or of a table's column.

    Where there are no validation or no test images, they are taken from the training images as `PerClass` does.

    Args:
        train_per_class, val_per_class, test_per_class, seed: see `PerClass`. Splits that are given are used whole, but
            a number or a share for training takes so many of the training images.
    """

    def keeps_splits(self, images: Images) -> bool:
        """Raises UserError: the source knows no splits, or only those of some images."""
        given = Counter(images.splits or ())
        if not has_splits(images):
            found = ", ".join(f"{given[split]} {split}" for split in SPLITS)
            expected = "expected training images, and validation or test images, in folders or a column of such names"
            raise UserError(f"no splits are given ({found}); {expected}.")
        if given[None]:
            names = [name for name, split in zip(images.names, images.splits or ()) if split is None]
            ways = "Put each into a split, leave them out (classes=[...]), or split all images anew (per_class)."
            raise UserError(f"{given[None]:,} images are in no split ({some(names)}), but others are. {ways}")
        return True

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64, classes mixed.

        Raises UserError as `keeps_splits`, and as `PerClass` for the training images.
        """
        self.keeps_splits(images)
        mixed = np.argsort(ranks(images.digests, str(self.seed)))
        given = np.array(images.splits)[mixed]
        splits = {split: mixed[given == split] for split in SPLITS}
        missing = [split for split in SPLITS[1:] if not len(splits[split])]
        if missing:
            rank_zero_info(f"no {' and no '.join(missing)} images are given: they are taken from the training images")
        if missing or self.sizes["train"] is not None:
            train = splits["train"]
            sizes = {split: size for split, size in self.sizes.items() if split == "train" or split in missing}
            taken = _divide_per_class(images.take(train), sizes, self.seed, may_lack_classes=True)
            splits |= {split: train[rows] for split, rows in taken.items()}
        if images.groups:
            _log_divided_groups(images.groups, splits)
        return splits


class GivenOrPerClass(Given):
    """`Given` if the source knows training images and validation or test images, else `PerClass`."""

    def keeps_splits(self, images: Images) -> bool:
        """Whether there are such splits. Raises UserError if only some of the images are in one."""
        return has_splits(images) and super().keeps_splits(images)

    def __call__(self, images: Images) -> dict[str, np.ndarray]:
        """For each split the indices of its images, int64. Raises UserError as the two do."""
        return (Given if has_splits(images) else PerClass).__call__(self, images)


def divide(split: SplitStrategy, images: Images, used: np.ndarray) -> dict[str, np.ndarray]:
    """The splits of the images at the (N,) indices `used`, as indices into all `images`.

    Raises UserError as the strategy does, and if it leaves out a split, or puts an image into two.
    """
    splits = {name: used[rows] for name, rows in split(images.take(used)).items()}
    strategy = getattr(split, "__name__", type(split).__name__)
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"the split {strategy} returns no {missing[0]} images; expected {', '.join(SPLITS)}.")
    rows, counts = np.unique(np.concatenate([splits[name] for name in SPLITS]), return_counts=True)
    if len(several := rows[counts > 1]):
        found = f"{len(several):,} images several times: {some([images.names[row] for row in several])}"
        raise UserError(f"the split {strategy} returns {found}. Expected each image once, in one split.")
    return splits


def keeps_splits(split: SplitStrategy, images: Images) -> bool:
    """Whether a strategy keeps the splits that the source knows. Raises as its `keeps_splits` does, if it has one."""
    return getattr(split, "keeps_splits", lambda images: False)(images)


def has_splits(images: Images) -> bool:
    """Whether the source knows training images, and validation or test images."""
    known = set(images.splits or ())
    return "train" in known and len(known - {None}) > 1


def with_training_split(images: Images) -> Images:
    """The same images; where the source knows validation or test images alone, the others are training images."""
    known = set(images.splits or ()) - {None}
    if not known or "train" in known:
        return images
    return replace(images, splits=[split or "train" for split in images.splits or ()])


def check_kept_splits(images: Images, used: np.ndarray, needed: Sequence[str] = SPLITS) -> None:
    """Raises UserError if a needed split has given images, but none of those at the (N,) indices that are used."""
    splits = images.splits or ()
    lost = set(splits) & set(needed) - {splits[index] for index in used}
    if lost:
        reason = f"all {' and all '.join(sorted(map(str, lost)))} images are left out"
        raise UserError(f"{reason}, for the reasons above. Correct them, or split all images anew (per_class).")


def _divide_per_class(
    images: Images, sizes: Mapping[str, int | float | None], seed: int, may_lack_classes: bool = False
) -> dict[str, np.ndarray]:
    """Splits of these sizes per class. Raises ArgumentError for a class without images unless they may lack classes."""
    order = ranks(images.digests, str(seed))
    mixed = np.argsort(order)
    available = np.bincount(images.labels, minlength=len(images.class_names)).tolist()
    counts = [
        dict.fromkeys(sizes, 0) if may_lack_classes and not number else counts_of_class(sizes, number, name)
        for number, name in zip(available, images.class_names)
    ]
    if images.groups:
        return _divide_groups(images, sizes, counts, order)
    bins = np.full(len(order), len(sizes))  # the last bin is unused
    by_class = mixed[np.argsort(images.labels[mixed], kind="stable")]
    for of_class, members in zip(counts, np.split(by_class, np.cumsum(available)[:-1])):
        numbers = np.repeat(np.arange(len(sizes)), list(of_class.values()))
        bins[members[: len(numbers)]] = numbers
    return {split: mixed[bins[mixed] == number] for number, split in enumerate(sizes)}


def _divide_groups(
    images: Images, sizes: Mapping[str, int | float | None], counts: Sequence[Mapping[str, int]], order: np.ndarray
) -> dict[str, np.ndarray]:
    """Splits of about `counts`, for each class, that divide no group."""
    targets = np.array([[of_class[split] for of_class in counts] for split in sizes], dtype=float)
    available = np.bincount(images.labels, minlength=len(counts))
    bins_targets = np.vstack([targets, available - targets.sum(axis=0)])  # the last bin is unused
    bins = assign_groups(images.labels, images.groups, bins_targets, order, np.arange(len(bins_targets)) < len(sizes))
    ordered = np.argsort(order)
    splits = {split: ordered[bins[ordered] == number] for number, split in enumerate(sizes)}
    asked = zip(splits.items(), targets.sum(axis=1))
    texts = [f"{split} {len(rows):,} ({wanted:,.0f} asked for)" for (split, rows), wanted in asked]
    number_of_groups = len(set(images.groups or ()))
    rank_zero_info(f"{number_of_groups:,} groups, each in one split: {', '.join(texts)}")
    for split, rows in splits.items():
        if not len(rows):
            reason = f"{number_of_groups} groups are too few, or too large, for the {split} split to have one"
            raise ArgumentError(f"{split}_per_class", sizes[split], f"{reason}; it needs at least one group.")
    return splits


def _log_divided_groups(groups: Sequence[str], splits: Mapping[str, np.ndarray]) -> None:
    found: dict[str, set[str]] = {}
    for split, rows in splits.items():
        for row in rows:
            found.setdefault(groups[row], set()).add(split)
    divided = sorted(group for group, of_group in found.items() if len(of_group) > 1)
    if divided:
        rank_zero_info(f"{len(divided):,} groups have images in several of the given splits: {some(divided)}")
