"""The folder of a run. What is in it decides whether a run begins, goes on, is skipped or is refused."""

import csv
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.runs.config import differing_keys, flat, read_config
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import write_csv, write_text

SPLIT_COLUMNS = ("split", "class", "sha256", "file")


class RunFolder:
    """What one run leaves in `path`, a folder that exists. `last` is the checkpoint that it writes after each epoch."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last.ckpt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out; raises UserError if one is using the folder.

        If the block fails, the file FAILED has the reason until the next attempt.
        """
        if getattr(rank_zero_only, "rank", 0):  # the first process of a distributed run holds the lock
            yield
            return
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise UserError(f"{self.path}: another run is using this folder. Wait, or choose another one.") from error
        with lock:
            try:
                (self.path / "FAILED").unlink(missing_ok=True)
                for partial in self.last.parent.glob("*.ckpt.partial"):  # of a killed process
                    partial.unlink()
                yield
            except Exception as error:
                with suppress(OSError):  # the disk may be full
                    (self.path / "FAILED").write_text(" ".join(str(error).split()) + "\n", encoding="utf-8")
                raise

    def metrics(self) -> dict | None:
        """The metrics of a finished run, or None. Raises UserError if the file is damaged."""
        return _read_json(self.path / "metrics.json", None)

    def config(self) -> dict[str, Any] | None:
        """The content of config.yaml, unresolved; None if there is none. Raises UserError if it is damaged."""
        return read_config(self.path / "config.yaml") if (self.path / "config.yaml").is_file() else None

    def claim(
        self,
        config: Mapping[str, Any],
        extra: Mapping[str, Any],
        may_change: Collection[str] = (),
        may_grow: str | None = None,
        given: Collection[str] = (),
    ) -> None:
        """Writes config.yaml when a run begins. If the folder has results, the config must be the same.

        Args:
            config: nested plain values.
            extra: further keys of config.yaml, which are not compared.
            may_change, may_grow: keys, with dots, that may differ, and one whose number may be larger. That extends the
                run; its metrics get another file name then.
            given: keys that the user has set (see `differing_keys`).

        Raises:
            UserError: the folder has the results of another config; the message names the differences.
        """
        old = {key: value for key, value in (self.config() or {}).items() if key not in extra}
        metrics = self.metrics()
        if self.last.exists() or metrics:
            before, now = flat(old), flat(config)
            differing = [key for key in differing_keys(old, config, given) if key not in may_change]
            sizes: list[Any] = [config.get(may_grow or "") for config in (before, now)]
            grows = differing == [may_grow] and all(type(size) is int for size in sizes) and sizes[0] < sizes[1]
            if differing and not grows:
                pairs = [(key, before.get(key, "absent"), now.get(key, "absent")) for key in differing[:8]]
                shown = "; ".join(f"{key} was {old_value}, is {new_value}" for key, old_value, new_value in pairs)
                more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
                ways = "They are unchanged. Use the same config, or another folder; only more epochs extend a run."
                raise UserError(f"{self.path}: has results of another config: {shown}{more}. {ways}")
            if grows and metrics:
                os.replace(self.path / "metrics.json", self.path / f"metrics-{metrics['epochs']}-epochs.json")
        if old != config:
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create({**config, **extra})))

    def check_images(self, data: ImageDataModule) -> None:
        """Raises UserError if the run began with other images, another split or other class names."""
        path = self.path / "split.csv"
        if count := _differing_images(path, _split_rows(data)):
            ways = "Restore them, or begin another run."
            raise UserError(f"{path}: this run began with other images ({count} differ). {ways}")

    @rank_zero_only
    def record(self, data: ImageDataModule, attempt: Mapping[str, Any], repeats: str | None = None) -> None:
        """Writes split.csv, the images of each split, and adds an attempt to provenance.json.

        `repeats` is the folder of a run that this one repeats; it is logged if the images of the two differ. Raises
        UserError if this run began with other images.
        """
        rows = _split_rows(data)
        path, other = self.path / "split.csv", Path(repeats or "", "split.csv")
        if self.last.exists():
            self.check_images(data)
        if repeats and (count := _differing_images(other, rows)):
            rank_zero_info(f"{repeats}: the run that is repeated had other images ({count} differ)")
        write_csv(path, [SPLIT_COLUMNS, *rows])
        path = self.path / "provenance.json"
        write_text(path, json.dumps([*_read_json(path, []), attempt], indent=1))


def _split_rows(data: ImageDataModule) -> list[tuple]:
    """The rows of split.csv."""
    return [
        (split, data.class_names[data.labels[index]], data.images.digests[index], data.images.names[index])
        for split, indices in data.splits.items()
        for index in indices
    ]


def _read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else default
    except ValueError as error:
        raise UserError(f"{path}: damaged ({first_line(error)}). Delete it, and repeat the command.") from error


def _differing_images(path: Path, rows: list[tuple]) -> int:
    """The number of images that are in only one of a split.csv, if it exists, and `rows`. Names of files may differ."""
    if not path.is_file():
        return 0
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return len({tuple(row[:3]) for row in csv.reader(file)} ^ {row[:3] for row in [SPLIT_COLUMNS, *rows]})
