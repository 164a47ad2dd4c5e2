"""Texts, images and results for the loggers of a run. A logger that has no place for one of them leaves it out."""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


class LoggerAdapter:
    """What a run shows besides metrics. This base class passes settings and results to any logger, and nothing else."""

    def __init__(self, logger: Logger):
        self.logger: Any = logger

    def text(self, name: str, text: str) -> None: ...

    def image(self, name: str, pixels: np.ndarray) -> None: ...  # (H, W, 3) uint8

    def charts(self, charts: Mapping[str, list[str]]) -> None: ...  # title -> metrics that share its axes

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None: ...  # train/... and val/..., of one epoch

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float], epochs: int | None = None) -> None:
        self.logger.log_hyperparams(dict(settings))
        self.logger.log_metrics(dict(results), step=epochs)
        self.logger.save()

    def finish(self) -> None: ...  # the next run of this process begins another one


class TensorBoardAdapter(LoggerAdapter):
    def text(self, name: str, text: str) -> None:
        self.logger.experiment.add_text(name, "\n".join("    " + line for line in text.splitlines()))  # monospaced

    def image(self, name: str, pixels: np.ndarray) -> None:
        self.logger.experiment.add_image(name, pixels, dataformats="HWC")

    def charts(self, charts: Mapping[str, list[str]]) -> None:
        layout = {title: ["Multiline", [f"^{metric}$" for metric in metrics]] for title, metrics in charts.items()}
        self.logger.experiment.add_custom_scalars({"training and validation": layout})

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics once more, `train/acc` as `acc` of a run `train`: TensorBoard has a colour for each run."""
        for split, writer in self._split_writers().items():
            for key, value in metrics.items():
                if key.startswith(f"{split}/"):
                    writer.add_scalar(key.removeprefix(f"{split}/"), value, number)
            writer.flush()

    def _split_writers(self) -> dict[str, Any]:
        """Writers to folders inside that of the run. A resumed run draws its curves again, from the first epoch."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        if not hasattr(self.logger, "split_writers"):
            folders = {split: Path(self.logger.log_dir, split) for split in ("train", "val")}
            self.logger.split_writers = {split: SummaryWriter(path, purge_step=0) for split, path in folders.items()}
        return self.logger.split_writers

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float], epochs: int | None = None) -> None:
        self.logger.log_hyperparams(dict(settings), dict(results))
        self.logger.finalize("success")

    def finish(self) -> None:
        for writer in vars(self.logger).pop("split_writers", {}).values():
            writer.close()


class WandbAdapter(LoggerAdapter):
    def text(self, name: str, text: str) -> None:
        self.logger.log_table(name, columns=[name], data=[[text]])

    def image(self, name: str, pixels: np.ndarray) -> None:
        self.logger.log_image(name, [pixels])

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float], epochs: int | None = None) -> None:
        self.logger.log_hyperparams(dict(settings))
        self.logger.experiment.summary.update(dict(results))

    def finish(self) -> None:
        self.logger.experiment.finish()


@singledispatch
def adapter(logger: Logger) -> LoggerAdapter:
    """The adapter of a logger. `adapter.register(MyLogger, MyAdapter)` adds one."""
    return LoggerAdapter(logger)


adapter.register(TensorBoardLogger, TensorBoardAdapter)
adapter.register(WandbLogger, WandbAdapter)


def adapters(trainer: pl.Trainer) -> list[LoggerAdapter]:
    """The adapters of a trainer's loggers; none on other processes than the first."""
    return [adapter(logger) for logger in trainer.loggers] if trainer.is_global_zero else []
