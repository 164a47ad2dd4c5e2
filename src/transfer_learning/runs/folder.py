"""The folder of a run. What is in it decides whether a run begins, goes on, is skipped or is refused."""

import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.checkpoint import read_checkpoint
from transfer_learning.runs.config import check_only_epochs_differ, flat, read_config
from transfer_learning.runs.metrics import read_metrics
from transfer_learning.runs.split_table import SPLIT_COLUMNS, differing_images, split_rows
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import replace, write_csv, write_text
from transfer_learning.utilities.text import some

WRITTEN = ("split.csv", "epochs.csv", "predictions.csv", "curves.png", "metrics.json", "provenance.json")


class RunFolder:
    """What one run leaves in `path`, a folder that exists.

    Attributes:
        last: the checkpoint that the run writes after each epoch.
        about: what its checkpoints say of the run after `claim`: its "id" and its "config", flat.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last.ckpt"
        self.about: dict[str, Any] = {}
        self._lock: tuple[int, int] | None = None
        self._begin: Callable[[], None] | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out; raises UserError if one is using the folder.

        If the block fails, the file FAILED has the reason until the next attempt.
        """
        if getattr(rank_zero_only, "rank", 0):  # the first process of a distributed run holds the lock
            with self._reason_kept():
                yield
            return
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise UserError(f"{self.path}: another run is using this folder. Wait, or choose another one.") from error
        with lock:
            self._lock = _identity(self.path / ".lock")
            with self._reason_kept():
                (self.path / "FAILED").unlink(missing_ok=True)
                for unfinished in self.last.parent.glob("*.ckpt.partial"):  # of a killed process
                    unfinished.unlink()
                yield

    @contextmanager
    def _reason_kept(self) -> Iterator[None]:
        """If the block fails, FAILED has the reason of the process in which it failed first."""
        try:
            yield
        except Exception as error:
            with suppress(OSError, UserError):  # the disk may be full, the folder another run's
                self.check_ours()
                with open(self.path / "FAILED", "x", encoding="utf-8") as file:
                    file.write(" ".join(str(error).split()) + "\n")
            raise

    def check_ours(self) -> None:
        """Raises UserError if the folder was removed or replaced after `locked`, so that another run may use it."""
        if self._lock and _identity(self.path / ".lock") != self._lock:
            stops = "This run stops and writes nothing more there."
            raise UserError(f"{self.path}: the folder was removed or replaced while this run was using it. {stops}")

    def stamp(self, checkpoint: dict) -> None:
        """Adds `about` to the content of a checkpoint that will be written, as "run". Raises as `check_ours`."""
        self.check_ours()
        checkpoint["run"] = self.about

    def config(self) -> dict[str, Any] | None:
        """The content of config.yaml, unresolved; None if there is none. Raises UserError if it is damaged."""
        return read_config(self.path / "config.yaml") if (self.path / "config.yaml").is_file() else None

    def claim(
        self,
        config: Mapping[str, Any],
        extra: Mapping[str, Any],
        may_change: Collection[str] = (),
        epochs_key: str | None = None,
        may_extend: bool = False,
        given: Collection[str] = (),
    ) -> bool:
        """Writes config.yaml when a run begins. If the folder has results, the config must be the same.

        The number of epochs may be another one: a smaller one if it is at least that of the epochs that are done, a
        larger one if the run `may_extend`. What that changes in the folder is changed by `begin_training`.

        Args:
            config: nested plain values.
            extra: further keys of config.yaml, which are not compared.
            may_change: keys, with dots, that may differ.
            epochs_key: that of the number of epochs.
            given: keys that the user has set (see `differing_keys`).

        Returns:
            Whether the run has finished, with as many epochs or more.

        Raises:
            UserError: the folder has the results of another config; the message names the differences. Or the run
                cannot be extended (see `cannot_be_extended`), or its checkpoints are damaged or of several runs.
        """
        old = {key: value for key, value in (self.config() or {}).items() if key not in extra}
        metrics, before, now = read_metrics(self.path), flat(old), flat(config)
        write_config = partial(self._write_config, old, config, extra)
        self.about, self._begin = {"id": uuid.uuid4().hex, "config": now}, None
        if not metrics and not self.last.exists():
            self._check_files(old)
            write_config()
            return False
        added = [f"{key}={now[key]}" for key in now if key not in before]
        if added:
            rank_zero_info(f"{self.path}: keys that its config did not have: {some(added)}")
        differ = partial(check_only_epochs_differ, self.path, now, given, may_change, epochs_key, may_extend)
        other_epochs, wanted = differ(before), cast(int, now.get(epochs_key or ""))  # an integer if they differ
        if metrics and not other_epochs:
            if not added:
                write_config()
            return True
        if metrics and wanted < before[epochs_key or ""]:
            return True
        if metrics and (reason := self.cannot_be_extended(metrics, before[epochs_key or ""])):
            raise UserError(f"{self.path}: {reason}")
        if self.last.exists():
            done, saved = self._saved()
            self.about["id"] = saved["id"]
            if (differ(saved["config"]) or other_epochs) and wanted < done:
                reason = f"{done} epochs are done; expected at least as many, or another folder."
                raise UserError(f"{self.path}: {epochs_key}={wanted}: {reason}")
        self._begin = partial(self._go_on, metrics, write_config)
        return False

    def cannot_be_extended(self, metrics: Mapping[str, Any], max_epochs: int | None) -> str | None:
        """Why this finished run cannot train more epochs than `max_epochs`; None if it can. Raises UserError."""
        if not self.last.exists():
            return f"more epochs need {self.last}, which is missing. Restore it, or use another folder."
        ended_before = not max_epochs or not 0 < max_epochs <= metrics["epochs"]  # such as after max_steps
        if ended_before or read_checkpoint(self.last).get("history", {}).get("stopped"):
            return f"it stopped by itself after {metrics['epochs']} epochs, so it trains no more. Use another folder."
        return None

    def _go_on(self, metrics: Mapping[str, Any] | None, write_config: Callable[[], None]) -> None:
        """What `begin_training` does in the folder of a run that goes on; `metrics` are those of its earlier end."""
        if metrics:
            replace(self.path / "metrics.json", self.path / f"metrics-{metrics['epochs']}-epochs.json")
        write_config()

    def _check_files(self, old: Mapping[str, Any]) -> None:
        """Raises UserError if the folder is no run's, but has files that a run would overwrite."""
        found = [name for name in WRITTEN if (self.path / name).exists()]
        if found and not old:
            reason = f"no run's folder, but it has {some(found)}, which a run would overwrite"
            raise UserError(f"{self.path}: {reason}. Choose another folder.")

    @rank_zero_only
    def _write_config(self, old: Mapping[str, Any], config: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        if old != config:
            write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create({**config, **extra})))

    def _saved(self) -> tuple[int, dict[str, Any]]:
        """The number of epochs that `last` has, and what it says about its run. Raises UserError as `claim`."""
        last = read_checkpoint(self.last)
        if "run" not in last:
            raise UserError(f"{self.last}: written by another program, which names no run. Move it away.")
        for path in sorted(self.last.parent.glob("*.ckpt")):
            if path != self.last and read_checkpoint(path).get("run", {}).get("id") != last["run"]["id"]:
                ways = "Move one of them away: the run that last.ckpt belongs to can go on."
                raise UserError(f"{path} and {self.last.name} beside it are of different runs. {ways}")
        return last["epoch"] + 1, last["run"]

    @rank_zero_only
    def begin_training(self) -> None:
        """Writes the config of a run that goes on with other epochs, and renames its earlier metrics; once.

        Called before the first step, or before the results if there is no step to take.
        """
        if self._begin:
            self._begin()
            self._begin = None

    def check_images(self, data: ImageDataModule) -> None:
        """Raises UserError if the run began with other images, another split or other class names, or if split.csv is
        missing, so that this is not known.
        """
        path = self.path / "split.csv"
        count = differing_images(path, split_rows(data))
        if count is None:
            ways = "Restore it, or begin another run."
            raise UserError(f"{path}: missing, so this run's images cannot be checked. {ways}")
        if count:
            ways = "Restore them, or begin another run."
            raise UserError(f"{path}: this run began with other images ({count} differ). {ways}")

    @rank_zero_only
    def record(self, data: ImageDataModule, attempt: Mapping[str, Any], repeats: str | None = None) -> None:
        """Writes split.csv, the images of each split, and adds an attempt to provenance.json.

        `repeats` is the folder of a run that this one repeats; it is logged if the images of the two differ, or if
        that is not known. Raises UserError as `check_images` if this run has a checkpoint.
        """
        rows = split_rows(data)
        path, other = self.path / "split.csv", Path(repeats or "", "split.csv")
        if self.last.exists():
            self.check_images(data)
        count = differing_images(other, rows) if repeats else 0
        if count is None:
            rank_zero_info(f"{other}: missing, so whether the run that is repeated had the same images is not known")
        elif count:
            rank_zero_info(f"{repeats}: the run that is repeated had other images ({count} differ)")
        write_csv(path, [SPLIT_COLUMNS, *rows])
        path = self.path / "provenance.json"
        write_text(path, json.dumps([*_read_json(path, []), attempt], indent=1))


def _identity(path: Path) -> tuple[int, int]:
    """The device and inode of a file, (0, 0) if there is none. An inode is not used again while the file is open."""
    try:
        state = os.stat(path)
        return state.st_dev, state.st_ino
    except OSError:
        return 0, 0


def _read_json(path: Path, default: Any) -> Any:
    try:
        return json.loads(path.read_bytes()) if path.is_file() else default
    except ValueError as error:
        raise UserError(f"{path}: damaged ({first_line(error)}). Delete it, and repeat the command.") from error
