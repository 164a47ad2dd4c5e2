"""The results of finished runs and sweeps: what their folders hold, and in which settings they differ."""

import csv
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from transfer_learning.reporting.prediction_table import PredictionTable, read_predictions
from transfer_learning.runs.config import flat
from transfer_learning.runs.leaderboard import Job, read_job
from transfer_learning.utilities.errors import UserError, first_line

MEASURES = {"val": "val/acc_best", "test": "test/acc"}  # a split's accuracy in the best epoch, in metrics.json


class Keys(NamedTuple):
    """Keys of a config, with dots, that mean something for a comparison. A key of a group stands for all keys in it."""

    replicates: Collection[str]  # runs that differ in these alone are repetitions
    ignored: Collection[str]  # they change no result
    names: Mapping[str, str]  # for a group that a command selects, the key that has its name
    reference: str  # published results
    train_shares: Collection[str] = ()  # in charts, the number of training images takes their place
    shown: Collection[str] = ()  # beside speed and size, also if they do not differ


@dataclass(frozen=True, eq=False)
class Run:
    """What a run's folder holds. What could not be read is None or empty, and `missing` says why."""

    path: Path
    job: Job
    config: Mapping[str, Any]  # with dots, unresolved
    epochs: Sequence[Mapping[str, float]]  # the rows of epochs.csv; a metric that an epoch lacks is not in its row
    predictions: PredictionTable | None  # of the split that is compared
    accuracy: float | None  # on that split, in the best epoch
    images: int  # of that split
    missing: Sequence[str]

    def setting(self, key: str, keys: Keys) -> Any:
        """The value of a key, or the name of a group; "" if it has none."""
        stored = keys.names.get(key, key)
        return self.config[stored] if stored in self.config else self.job.settings.get(key, "")

    def text(self, key: str, keys: Keys) -> str:
        """The same as text: true, null, 0.001, [8, 16]."""
        return _text(self.setting(key, keys))


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The folders of all runs at or below paths, each once. Raises UserError for a path at which there is none."""
    found: dict[Path, Path] = {}
    for path in paths:
        logs = [path / "train.log"] if (path / "train.log").is_file() else sorted(path.rglob("train.log"))
        if not logs:
            expected = "expected the folder of a run or of a sweep, or one above them, such as outputs/runs"
            raise UserError(f"{path}: {'no run there' if path.is_dir() else 'no such folder'}; {expected}.")
        found = {log.parent.resolve(): log.parent for log in logs} | found
    return list(found.values())


def read_run(path: Path, split: str) -> Run:
    """Reads the folder of a run. Only a finished run has results; they are those on a split, "val" or "test"."""
    job, config = read_job(path, finished_stays=True)
    refused = job.state == "finished" and (path / "FAILED").exists()
    missing = ["a later command in this folder was refused; these results are from before that"] if refused else []
    epochs: list[dict[str, float]] = []
    predictions = accuracy = None
    if job.state == "finished":
        try:
            with open(path / "epochs.csv", newline="", encoding="utf-8") as file:
                epochs = [_finite(row) for row in csv.DictReader(file)]
            if not all("epoch" in row for row in epochs):
                raise ValueError("a row has no epoch")
        except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
            epochs, reason = [], "none" if isinstance(error, FileNotFoundError) else f"damaged ({first_line(error)})"
            missing.append(f"epochs.csv: {reason}, so no curves")
        accuracy = job.metrics.get(MEASURES[split])
        predictions = _predictions(path / "predictions.csv", split, accuracy, missing)
        if accuracy is None:
            missing.append(f"metrics.json: no {MEASURES[split]}")
    images = job.metrics.get(f"images_{split}") or (len(predictions.labels) if predictions else 0)
    return Run(path, job, flat(config), epochs, predictions, accuracy, images, missing)


def _finite(row: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row of epochs.csv, but those that are missing or not finite."""
    numbers = {key: float(text) for key, text in row.items() if text}
    return {key: number for key, number in numbers.items() if isfinite(number)}


def _predictions(path: Path, split: str, accuracy: float | None, missing: list[str]) -> PredictionTable | None:
    """The rows of a split, or None and in `missing` the reason."""
    if not path.is_file():
        missing.append("predictions.csv: none, so not compared with other runs, and no confusion matrix")
        return None
    try:
        table = read_predictions(path).of(split)
    except UserError as error:
        missing.append(str(error).removeprefix(f"{path.parent}/"))
        return None
    if not len(table.labels):
        missing.append(f"predictions.csv: no images of split {split}, so not compared with other runs")
        return None
    found = float((table.predicted == table.labels).mean())
    if accuracy is not None and abs(found - accuracy) > 0.5 / len(table.labels):
        missing.append(
            f"predictions.csv has accuracy {found:.4f}, metrics.json {accuracy:.4f}; comparisons use the first"
        )
    return table


def differing_settings(runs: Sequence[Run], keys: Keys) -> list[str]:
    """The settings in which runs differ: those that a command set, then those that tell apart runs like these."""
    typed = dict.fromkeys(key for run in runs for key in run.job.settings if not _among(key, keys.ignored))
    found = [key for key in typed if _differ(runs, key, keys)]
    alike: dict[tuple, list[Run]] = {}
    for run in runs:
        alike.setdefault(tuple(run.text(key, keys) for key in found), []).append(run)
    for members in alike.values():
        every = dict.fromkeys(key for run in members for key in run.config if not _among(key, keys.ignored))
        found += [key for key in every if key not in found and _differ(members, key, keys)]
    return found


def repetitions(runs: Sequence[Run], keys: Keys) -> list[list[Run]]:
    """Groups of runs that differ in seed or fold alone, in the order of their first runs."""
    left_out = [*keys.replicates, *keys.ignored]
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        fixed = tuple(sorted((key, _text(run.config[key])) for key in run.config if not _among(key, left_out)))
        groups.setdefault(fixed or run.path, []).append(run)  # a run without a config is a group of its own
    return list(groups.values())


def _differ(runs: Sequence[Run], key: str, keys: Keys) -> bool:
    return len({run.text(key, keys) for run in runs}) > 1


def _among(key: str, groups: Collection[str]) -> bool:
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
