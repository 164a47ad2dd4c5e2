"""A run's folder: one process at a time, one config for good, one split for good. What lies in it decides how a run begins."""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from transfer_learning.atomic import replacing
from transfer_learning.data.module import ImageData
from transfer_learning.errors import UserError, first_line, one_line

HERE = "${hydra:runtime.output_dir}"  # stays as it is in config.yaml: a folder may be moved, and its run repeated elsewhere
COLUMNS = ("part", "class", "sha256", "file")  # of split.csv
PLACES = {"data.cache_dir", "data.download_to"}  # of what can be had again


class RunFolder:
    """Where one run leaves all that it leaves, however often it is started.

    Args:
        path: the folder, which exists.

    Attributes:
        last: the checkpoint that a run leaves after each epoch; it may not be there.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.last = self.path / "checkpoints" / "last.ckpt"

    @contextmanager
    def occupied(self) -> Iterator[None]:
        """Keeps other processes out, however this one ends. A failure leaves its reason in the file FAILED until the next attempt.

        Raises:
            UserError: a run is at work in the folder.
        """
        if rank_zero_only.rank:  # the process that started this one does it
            yield
            return
        failed = self.path / "FAILED"
        try:
            lock = FileLock(self.path / ".lock", timeout=0).acquire()
        except Timeout as error:
            raise UserError(
                f"{self.path}: another run is at work in this folder. Wait for it, or choose another folder."
            ) from error
        with lock:
            try:
                failed.unlink(missing_ok=True)
                for partial in self.last.parent.glob("*.ckpt.partial"):  # of a process that was killed
                    partial.unlink()
                yield
            except Exception as error:
                with suppress(OSError):  # the disk may be what failed
                    failed.write_text(one_line(error, str(self.path)) + "\n")
                raise

    def metrics(self) -> dict | None:
        """Those of a finished run; None where it has not finished. Raises UserError where they cannot be read."""
        return _read_json(self.path / "metrics.json", None)

    def config(self) -> dict | None:
        """The config that `agree` wrote; None where there is none. Raises UserError where it cannot be read."""
        path = self.path / "config.yaml"
        if not path.is_file():
            return None
        try:
            config = OmegaConf.to_container(OmegaConf.load(path))
            config.pop("hydra")
            return config
        except Exception as error:  # PyYAML's and OmegaConf's many
            raise UserError(
                f"{path}: not the config of a run ({type(error).__name__}). Choose another folder."
            ) from error

    def agree(self, cfg: DictConfig, hydra: Mapping, may_extend: bool) -> None:
        """Writes the config of a run that begins. Where one has left results, the config must be the same.

        Args:
            cfg: of which all is kept that a run depends on, resolved.
            hydra: Hydra's own settings, with which config.yaml is a complete config for `train.py --config-path=FOLDER`.
            may_extend: whether `trainer.max_epochs` may have grown: a finished run is one that goes on then.

        Raises:
            UserError: results of another config, or of none; the difference is in the message.
        """
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        saved, config = self.config(), _resolved(OmegaConf.to_container(cfg), values)
        if self.last.exists() or self.metrics():
            old, new = _flat(saved or {}), _flat(config)
            differing = [
                key
                for key in sorted(old | new)
                if key not in PLACES and old.get(key, "absent") != new.get(key, "absent")
            ]
            epochs = [flat.get("trainer.max_epochs") for flat in (old, new)]
            if (
                differing == ["trainer.max_epochs"]
                and may_extend
                and all(type(each) is int for each in epochs)
                and epochs[0] < epochs[1]
            ):
                if self.metrics():  # what it had reached stays on record
                    os.replace(
                        self.path / "metrics.json", self.path / f"metrics-{self.metrics()['epochs']}-epochs.json"
                    )
            elif differing:
                shown = "; ".join(
                    f"{key} was {old.get(key, 'absent')}, is {new.get(key, 'absent')}" for key in differing[:8]
                )
                more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
                raise UserError(
                    f"{self.path}: holds results of another config: {shown}{more}. They are as they were. Take the same config, "
                    "choose another folder, or delete this one; a run goes on with more trainer.max_epochs alone."
                )
        if saved != config:
            with replacing(self.path / "config.yaml") as file:
                file.write(OmegaConf.to_yaml(config | {"hydra": hydra}).encode())

    @rank_zero_only
    def record(self, data: ImageData, attempt: dict, repeats: str | None = None) -> None:
        """Writes split.csv, the images of each part, and adds an attempt (`provenance.attempt`) to provenance.json.

        Args:
            repeats: the folder of a run that this one repeats; where its images are others, it is said.

        Raises:
            UserError: the run has begun with other images.
        """
        path = self.path / "split.csv"
        rows = [
            (part, data.class_names[data.labels[index]], data.images.digests[index], data.images.names[index])
            for part, indices in data.parts.items()
            for index in indices
        ]
        if self.last.exists() and (others := _others(path, rows)):
            raise UserError(
                f"{path}: this run began with other images ({others} differ). Put them back, or begin another run."
            )
        if repeats and (others := _others(Path(repeats, "split.csv"), rows)):
            rank_zero_info(f"{repeats}: the run that is repeated had other images ({others} differ)")
        text = io.StringIO(newline="")
        csv.writer(text).writerows([COLUMNS, *rows])
        with replacing(path) as file:
            file.write(text.getvalue().encode())
        path = self.path / "provenance.json"
        attempts = [*_read_json(path, []), attempt]
        with replacing(path) as file:
            file.write(json.dumps(attempts, indent=1).encode())


def _read_json(path: Path, otherwise):
    try:
        return json.loads(path.read_bytes()) if path.is_file() else otherwise
    except ValueError as error:
        raise UserError(f"{path}: damaged ({first_line(error)}). Delete it, and run the same again.") from error


def _others(path: Path, rows: list[tuple]) -> int:
    """How many images stand in the split.csv at `path` or in `rows`, but not in both; none where there is no such file."""
    if not path.is_file():
        return 0
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return len(
            {tuple(row[:3]) for row in csv.reader(file)} ^ {row[:3] for row in [COLUMNS, *rows]}
        )  # files may have other names


def _resolved(config: dict, values: dict) -> dict:
    """A config with its values in the place of interpolations, but for what names the run's folder or follows the seed."""
    kept = {
        key: _resolved(each, values[key]) if isinstance(each, dict) else values[key] for key, each in config.items()
    }
    return kept | {
        key: each for key, each in config.items() if isinstance(each, str) and (HERE in each or "${seed}" in each)
    }


def _flat(config: dict, prefix: str = "") -> dict:
    """Nested keys as one, with dots."""
    flat = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat
