"""Texts, figures, charts and results for the loggers of a run. A logger without a place for something leaves it out."""

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, TensorBoardLogger


class LoggerAdapter:
    """What a run shows besides metrics. The base class is for loggers that take nothing else, such as CSVLogger.

    Args:
        logger: one of Lightning's loggers.
    """

    def __init__(self, logger: Logger):
        self.logger: Any = logger

    def text(self, name: str, text: str) -> None:
        """Shows a text in a monospaced font."""

    def figure(self, name: str, figure: Figure) -> None:
        """Shows a figure."""

    def charts(self, charts: Mapping[str, list[str]]) -> None:
        """Shows metrics on shared axes: the title of each chart and its metrics."""

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """Shows the settings of the run beside its results."""
        self.logger.log_hyperparams(dict(settings))
        self.logger.log_metrics(dict(results))

    def finish(self) -> None:
        """Ends the run; the next run of this process begins another one."""


class TensorBoardAdapter(LoggerAdapter):
    def text(self, name: str, text: str) -> None:
        self.logger.experiment.add_text(name, "\n".join("    " + line for line in text.splitlines()))

    def figure(self, name: str, figure: Figure) -> None:
        self.logger.experiment.add_figure(name, figure)

    def charts(self, charts: Mapping[str, list[str]]) -> None:
        layout = {title: ["Multiline", [f"^{metric}$" for metric in metrics]] for title, metrics in charts.items()}
        self.logger.experiment.add_custom_scalars({"training and validation": layout})

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float]) -> None:
        self.logger.log_hyperparams(dict(settings), dict(results))
        self.logger.finalize("success")


class WandbAdapter(LoggerAdapter):
    def text(self, name: str, text: str) -> None:
        import wandb

        self.logger.experiment.log({name: wandb.Html(f"<pre>{text}</pre>")})

    def figure(self, name: str, figure: Figure) -> None:
        import wandb

        self.logger.experiment.log({name: wandb.Image(figure)})

    def results(self, settings: Mapping[str, Any], results: Mapping[str, float]) -> None:
        self.logger.log_hyperparams(dict(settings))
        self.logger.experiment.summary.update(dict(results))

    def finish(self) -> None:
        self.logger.experiment.finish()


@singledispatch
def adapter(logger: Logger) -> LoggerAdapter:
    """The adapter of a logger; another one is registered with `adapter.register(LoggerClass, AdapterClass)`."""
    return LoggerAdapter(logger)


adapter.register(TensorBoardLogger, TensorBoardAdapter)
adapter.register(pl.loggers.WandbLogger, WandbAdapter)


def adapters(trainer: pl.Trainer) -> list[LoggerAdapter]:
    """The adapters of a trainer's loggers; none on other processes than the first."""
    return [adapter(logger) for logger in trainer.loggers] if trainer.is_global_zero else []
