"""predictions.csv: what a model predicted for labelled images, one row for each image."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import write_csv

COLUMNS = ["file", "sha256", "split", "label", "predicted"]
PREFIX = "p:"  # of a class's column of probabilities; so a class may be called "file"


@dataclass(frozen=True)
class PredictionTable:
    """Predictions for N labelled images."""

    files: Sequence[str]
    digests: Sequence[str]  # SHA-256 (hex) of the images' bytes
    splits: Sequence[str]  # "val", "test", or the name of another data set
    labels: np.ndarray  # class codes, (N,) int64 in [0, C)
    probabilities: np.ndarray  # (N, C) float32 in [0, 1]
    class_names: Sequence[str]  # C names; a code is a position in it

    @property
    def predicted(self) -> np.ndarray:
        """The code of each image's most probable class, (N,) int64."""
        return self.probabilities.argmax(axis=1)

    def confusion_counts(self) -> np.ndarray:
        """How many images of each class (rows) were predicted as each class (columns), (C, C) int64."""
        count = len(self.class_names)
        return np.bincount(self.labels * count + self.predicted, minlength=count**2).reshape(count, count)

    def take(self, indices: np.ndarray) -> "PredictionTable":
        """The rows at (M,) indices, in that order."""
        files, digests, splits = ([column[n] for n in indices] for column in (self.files, self.digests, self.splits))
        return PredictionTable(
            files, digests, splits, self.labels[indices], self.probabilities[indices], self.class_names
        )

    def of(self, split: str) -> "PredictionTable":
        """The rows of one split."""
        return self.take(np.flatnonzero(np.array(self.splits, dtype=object) == split))


def write_predictions(path: str | Path, tables: Sequence[PredictionTable]) -> None:
    """Writes the rows of tables with the same classes atomically, probabilities to the last bit. Raises OSError."""
    write_csv(path, _rows(tables))


def _rows(tables: Sequence[PredictionTable]) -> Iterator[list[str]]:
    """The header, and the rows one by one: as texts, the probabilities of many classes would fill the memory."""
    names = tables[0].class_names
    yield [*COLUMNS, *(PREFIX + name for name in names)]
    for table in tables:
        labels, predicted = ([names[code] for code in codes] for codes in (table.labels, table.predicted))
        texts = zip(table.files, table.digests, table.splits, labels, predicted)
        yield from ([*text, *map(str, row)] for text, row in zip(texts, table.probabilities))


def read_predictions(path: str | Path) -> PredictionTable:
    """Reads what `write_predictions` wrote. Raises UserError if the file is missing, damaged or something else."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:  # as spreadsheets save it
            reader = csv.reader(file)
            header = next(reader, [])
            names = [column.removeprefix(PREFIX) for column in header[len(COLUMNS) :]]
            if header[: len(COLUMNS)] != COLUMNS or header[len(COLUMNS) :] != [PREFIX + name for name in names]:
                raise ValueError(f"its columns are not {','.join(COLUMNS)},{PREFIX}CLASS ...")
            texts, probabilities = list[list[str]](), list[np.ndarray]()
            for row in reader:
                if len(row) != len(header):
                    raise ValueError("a row lacks columns, or has more")
                texts.append(row[: len(COLUMNS)])
                probabilities.append(np.array(row[len(COLUMNS) :], dtype=np.float32))
        codes = {name: code for code, name in enumerate(names)}
        files, digests, splits, labels, _ = zip(*texts)
        labels_array = np.array([codes[label] for label in labels], dtype=np.int64)
        return PredictionTable(files, digests, splits, labels_array, np.stack(probabilities), tuple(names))
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path}: not a table of predictions, or damaged ({first_line(error)}).") from error
