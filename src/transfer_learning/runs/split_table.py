"""split.csv, the images of each split of a run: its rows, and how it differs from other images."""

import csv
from pathlib import Path

from transfer_learning.data.datamodule import ImageDataModule

SPLIT_COLUMNS = ("split", "class", "sha256", "file")


def split_rows(data: ImageDataModule) -> list[tuple]:
    """The rows of split.csv, with `SPLIT_COLUMNS`."""
    return [
        (split, data.class_names[data.labels[index]], data.images.digests[index], data.images.names[index])
        for split, indices in data.splits.items()
        for index in indices
    ]


def digests_of_split(path: Path, split: str) -> set[str] | None:
    """The digests of a split's images in a split.csv, None if there is no such file."""
    found = _read(path)
    return None if found is None else {row[2] for row in found if row[:1] == [split] and len(row) == len(SPLIT_COLUMNS)}


def differing_images(path: Path, rows: list[tuple]) -> int | None:
    """The number of images that are in only one of a split.csv and `rows`, None if there is no such file.

    Names of files may differ.
    """
    found = _read(path)
    if found is None:
        return None
    return len({tuple(row[:3]) for row in found} ^ {row[:3] for row in [SPLIT_COLUMNS, *rows]})


def _read(path: Path) -> list[list[str]] | None:
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return list(csv.reader(file))
