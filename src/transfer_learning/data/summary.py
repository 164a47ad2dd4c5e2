"""What was found: a short table of classes and splits, and what was left out and why."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from tabulate import tabulate

from transfer_learning.data.images import Images
from transfer_learning.data.splits import SPLITS
from transfer_learning.utilities.text import some

SHOWN = 20  # classes that the terminal shows
NAMED = 3  # files that the terminal names
log = logging.getLogger("transfer_learning.details")  # long lists: conf/config.yaml writes them to the log file alone


def log_classes(class_names: Sequence[str], labels: np.ndarray, splits: Mapping[str, np.ndarray], usable: int) -> None:
    """Logs a table with a row for each class and a column for each split.

    Of more than 20 classes, the terminal shows the 10 largest and the 10 smallest; the log file has all.

    Args:
        labels: of all images, (M,) int64.
        splits: indices into the labels.
        usable: the number of images that could be used; those in no split are counted.
    """
    counts = [np.bincount(labels[rows], minlength=len(class_names)) for rows in splits.values()]
    rows = [[name, *numbers] for name, *numbers in zip(class_names, *counts)]
    total = [f"all {len(rows):,} classes" if len(rows) > SHOWN else "all", *(len(each) for each in splits.values())]
    by_size = sorted(rows, key=lambda row: -sum(row[1:]))
    shown = [*by_size[: SHOWN // 2], ["..."], *by_size[-SHOWN // 2 :]] if len(rows) > SHOWN else rows
    rank_zero_info(_table([*shown, total], splits))
    if shown is not rows:
        log_details(_table([*rows, total], splits))
    for split, numbers in zip(splits, counts):
        if absent := [name for name, number in zip(class_names, numbers) if not number]:
            rank_zero_info(f"no {split} images of {some(absent)}")
    if unused := usable - sum(map(len, splits.values())):
        rank_zero_info(f"in no split: {unused:,} images, which the sizes of the splits do not use")


def log_shapes(
    class_names: Sequence[str], labels: np.ndarray, splits: Mapping[str, np.ndarray], pixels: np.ndarray
) -> None:
    """Logs the shape of each split's images, of pixels (M, H, W, 3), and five labels as names and codes."""
    for split, rows in splits.items():
        rank_zero_info(f"{split} dataset shape: {(len(rows), *pixels.shape[1:])} {pixels.dtype}")
    shown = labels[np.random.default_rng(0).choice(splits["train"], 5)].tolist()
    rank_zero_info(f"five labels: {[class_names[code] for code in shown]} -> {shown}")


def log_given_splits(splits: Sequence[str | None], use: str) -> None:
    """Logs how many images are in splits that the source knows, if it knows any, and how they are used."""
    counts = Counter(split or "no split" for split in splits)
    if set(counts) - {"no split"}:
        numbers = ", ".join(f"{split} {counts[split]:,}" for split in (*SPLITS, "no split") if counts[split])
        rank_zero_info(f"given splits: {numbers} images; {use}")


def log_left_out(left_out: Mapping[str, Sequence[str]]) -> None:
    """Logs how many files were left out for each reason, and the first names; the others go to the log file."""
    for reason, names in left_out.items():
        if names:
            rank_zero_info(f"left out, {reason}: {len(names):,} ({some(names, NAMED)})")
        for name in names[NAMED:]:
            log_details(f"left out, {reason}: {name}")


def log_images_left_out(images: Images, left_out: Mapping[int, tuple[str, str]]) -> None:
    """Logs what the source left out, and what was left out later: index of an image -> the reason, a detail or ""."""
    reasons = {reason: list(names) for reason, names in images.left_out.items()}
    for index, (reason, detail) in left_out.items():
        name = images.names[index]
        reasons.setdefault(reason, []).append(f"{name} ({detail})" if detail else name)
    log_left_out(reasons)


def log_frames(names: Sequence[str], frames: Collection[int]) -> None:
    """Logs how many of the named files have several frames; `frames` are their indices."""
    if frames:
        files = some([names[index] for index in sorted(frames)], 1)
        rank_zero_info(f"several frames, of which the first is used: {len(frames):,} files ({files})")


@rank_zero_only
def log_details(text: str) -> None:
    log.debug(text)


def _table(rows: Sequence[Sequence], splits: Iterable[str]) -> str:
    texts = [[name, *(f"{count:,}" for count in counts)] for name, *counts in rows]
    alignment = ["left", *["right" for _ in splits]]
    return tabulate(texts, ["class", *splits], disable_numparse=True, colalign=alignment)
