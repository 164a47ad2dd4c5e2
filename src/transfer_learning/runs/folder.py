"""The folder of a run. What is in it decides whether a run begins, goes on, is skipped or is refused."""

import csv
import io
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
from transfer_learning.utilities.files import write_text

SPLIT_COLUMNS = ("split", "class", "sha256", "file")


class RunFolder:
    """Everything that one run leaves, however often it is started.

    Args:
        path: the folder, which exists.

    Attributes:
        last: the checkpoint that a run writes after each epoch; it may not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last.ckpt"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out. If the block fails, the file FAILED has the reason until the next attempt.

        Raises:
            UserError: another run is using the folder.
        """
        if rank_zero_only.rank:  # the first process of a distributed run holds the lock
            yield
            return
        failed = self.path / "FAILED"
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise UserError(f"{self.path}: another run is using this folder. Wait, or choose another one.") from error
        with lock:
            try:
                failed.unlink(missing_ok=True)
                for partial in self.last.parent.glob("*.ckpt.partial"):  # of a killed process
                    partial.unlink()
                yield
            except Exception as error:
                with suppress(OSError):  # the disk may be full
                    failed.write_text(" ".join(str(error).split()) + "\n", encoding="utf-8")
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
            may_change: keys (`group.name`) that may differ.
            may_grow: a key whose number may be larger, which extends the run; its old metrics are kept under another name.
            given: keys that the user has set. A key that the old config lacks, because it was added to the program
                later, only counts as a difference if it is one of them.

        Raises:
            UserError: the folder has the results of another config; the message names the differences.
        """
        old = {key: value for key, value in (self.config() or {}).items() if key not in extra}
        if self.last.exists() or self.metrics():
            before, now = flat(old), flat(config)
            differing = [key for key in differing_keys(old, config, given) if key not in may_change]
            sizes = [before.get(may_grow), now.get(may_grow)] if may_grow else [None]
            if differing == [may_grow] and all(type(size) is int for size in sizes) and sizes[0] < sizes[1]:
                self._keep_metrics()
            elif differing:
                raise UserError(self._difference(differing, before, now))
        if old != config:
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create({**config, **extra})))

    def _keep_metrics(self) -> None:
        if metrics := self.metrics():
            os.replace(self.path / "metrics.json", self.path / f"metrics-{metrics['epochs']}-epochs.json")

    def _difference(self, keys: list[str], before: Mapping, now: Mapping) -> str:
        shown = "; ".join(f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}" for key in keys[:8])
        more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
        ways = "Use the same config, choose another folder, or delete this one; a run only goes on with more epochs."
        return f"{self.path}: has results of another config: {shown}{more}. They are unchanged. {ways}"

    @rank_zero_only
    def record(self, data: ImageDataModule, attempt: Mapping[str, Any], repeats: str | None = None) -> None:
        """Writes split.csv, the images of each split, and adds an attempt to provenance.json.

        Args:
            repeats: the folder of a run that this one repeats; it is logged if the images of the two differ.

        Raises:
            UserError: the run began with other images.
        """
        path = self.path / "split.csv"
        rows = [
            (split, data.class_names[data.labels[index]], data.images.digests[index], data.images.names[index])
            for split, indices in data.splits.items()
            for index in indices
        ]
        if self.last.exists() and (count := _differing_images(path, rows)):
            raise UserError(
                f"{path}: this run began with other images ({count} differ). Restore them, or begin another run."
            )
        if repeats and (count := _differing_images(Path(repeats, "split.csv"), rows)):
            rank_zero_info(f"{repeats}: the run that is repeated had other images ({count} differ)")
        text = io.StringIO(newline="")
        csv.writer(text).writerows([SPLIT_COLUMNS, *rows])
        write_text(path, text.getvalue())
        path = self.path / "provenance.json"
        write_text(path, json.dumps([*_read_json(path, []), attempt], indent=1))


def _read_json(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else otherwise
    except ValueError as error:
        raise UserError(f"{path}: damaged ({first_line(error)}). Delete it, and repeat the command.") from error


def _differing_images(path: Path, rows: list[tuple]) -> int:
    """The number of images that are in only one of a split.csv, if it exists, and `rows`. Names of files may differ."""
    if not path.is_file():
        return 0
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return len({tuple(row[:3]) for row in csv.reader(file)} ^ {row[:3] for row in [SPLIT_COLUMNS, *rows]})
