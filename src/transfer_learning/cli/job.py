"""From a composed config to a trained model."""

import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tqdm.contrib.logging import logging_redirect_tqdm

from transfer_learning.callbacks.loggers import adapters
from transfer_learning.cli.build import absolute_paths, build, build_all, build_data, check_added_keys
from transfer_learning.cli.errors import name_keys
from transfer_learning.cli.overrides import as_typed, keys_of
from transfer_learning.cli.project import MAY_CHANGE, MAY_GROW, PROJECT
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.engine.checkpoint_file import BackgroundWriter, CheckpointFile
from transfer_learning.engine.checks import check_training
from transfer_learning.engine.classifier import Classifier
from transfer_learning.engine.lr_finder import find_learning_rate
from transfer_learning.engine.training import train
from transfer_learning.runs.folder import RunFolder
from transfer_learning.runs.guard import RunGuard
from transfer_learning.runs.metrics import read_metrics
from transfer_learning.runs.provenance import attempt
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.hardware import check_accelerator, configure_process, default_precision, gpu_of_worker
from transfer_learning.utilities.validation import check_types

OUTPUT_DIR = "${hydra:runtime.output_dir}"
log = logging.getLogger("train")


def run_job(cfg: DictConfig, is_single: bool, command: list[str], started: float) -> float:
    """Begins, continues or skips a run, depending on what is in its folder. Returns the best value of the monitor.

    Args:
        is_single: whether it is a run of its own, not a job of a sweep.
        command, started: the command line, and `time.perf_counter()` when it began.
    """
    configure_process()
    folder, overrides = RunFolder(HydraConfig.get().runtime.output_dir), list(HydraConfig.get().overrides.task)
    with folder.locked(), logging_redirect_tqdm(), name_keys(cfg):
        check_added_keys(cfg, overrides)
        before = folder.config() or {}
        own: Any = OmegaConf.load(PROJECT / "conf" / "config.yaml")
        with open_dict(cfg):  # that of resume= or rerun= may be of a program without these keys
            cfg.update({key: own[key] for key in ("monitor", "test", "find_lr") if key not in cfg})
        check_mode(cfg, is_single)
        fill_in(cfg, before if folder.last.exists() or read_metrics(folder.path) else {})
        check_place(cfg, folder.path)
        kept = [override for override in cfg.overrides if not keys_of([override]) & keys_of(overrides)]  # of resume=
        extra = {"overrides": [*kept, *overrides], "hydra": OmegaConf.to_container(own.hydra)}
        new = keys_of([override for override in overrides if override not in before.get("overrides", [])])
        new |= set(map(str, cfg)) if new & {"experiment", "debug", "system"} else set()  # they set keys of other groups
        if folder.claim(recorded(cfg), extra, MAY_CHANGE, MAY_GROW, may_extend=is_single, given=new):
            metrics: Any = read_metrics(folder.path)
            longer = metrics["epochs"] > (cfg.trainer.max_epochs or math.inf)
            epochs = f" after {metrics['epochs']} epochs" if longer else ""
            fixed = not is_single or folder.cannot_be_extended(metrics, before["trainer"]["max_epochs"])
            more = "" if fixed else f" A larger {MAY_GROW} extends it."
            result = f"{metrics['monitor']} {metrics['monitor_best']:.4f}"
            log.info(f"{folder.path}: finished already{epochs}, {result}.{more}")
            return metrics["monitor_best"]
        return build_and_train(cfg, folder, is_single, command, started)


def check_mode(cfg: DictConfig, is_single: bool) -> None:
    """Raises UserError for a sweep without -m, and for a learning-rate finder with -m."""
    if cfg.sweep is not None and is_single:
        raise UserError(f"sweep={cfg.sweep}: names a sweep; add -m.")
    hydra_config = HydraConfig.get()
    for key, values in (hydra_config.sweeper.get("params") or {}).items():  # of an experiment such as the tutorial
        if key not in keys_of(hydra_config.overrides.task):
            experiment = f"experiment={hydra_config.runtime.choices.get('experiment')}"
            way = "add -m" if is_single else "give it a command of its own"
            raise UserError(f"{experiment}: is a sweep; {way}, or choose one of {key}={values}.")
    check_system(hydra_config.runtime.choices)
    check_direction(cfg, hydra_config.sweeper.get("direction"))
    if type(cfg.find_lr) is not bool:
        raise UserError(f"find_lr={as_typed(cfg.find_lr)}: expected true or false.")
    if cfg.find_lr and not is_single:
        raise UserError("find_lr=true: trains nothing that a sweep could compare; leave out -m.")


def check_place(cfg: DictConfig, folder: Path) -> None:
    """Raises UserError if the run's folder is that of the images, where what is in it counts as images."""
    if (root := cfg.data.get("root")) and os.path.realpath(root) == os.path.realpath(folder):
        ways = "Choose another one, or leave hydra.run.dir out."
        raise UserError(f"hydra.run.dir={folder}: the folder of the images, data.root. {ways}")


def check_system(choices: Mapping[str, Any]) -> None:
    """Raises UserError if the command or an experiment has replaced the model of the `system` that was chosen."""
    if system := choices.get("system"):
        own = OmegaConf.load(PROJECT / "conf" / "system" / f"{system}.yaml").defaults[0]["override /model"]
        if own != choices["model"]:
            both = f"model={own}, but model={choices['model']} is chosen too"
            raise UserError(f"system={system}: is {both}; leave out one.")


def check_direction(cfg: DictConfig, direction: Any) -> None:
    """Raises UserError if a sweeper such as Optuna's searches for the worst value of the monitored metric."""
    expected = "maximize" if cfg.monitor_mode == "max" else "minimize"
    found = getattr(direction, "name", direction)
    if found not in (None, expected):
        raise UserError(f"hydra.sweeper.direction={found}: monitor={cfg.monitor} needs {expected}.")


def fill_in(cfg: DictConfig, before: dict) -> None:
    """Makes paths absolute, adds the monitored metric, and resolves the precision "auto".

    `before` is the config of the run that goes on or has finished, which keeps its precision, or empty. Raises
    UserError for an unknown monitor.
    """
    cfg.sweep = None  # only the folder of the sweep depends on it
    absolute_paths(cfg)
    add_monitored_metric(cfg)
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = before["trainer"]["precision"] if before else default_precision(cfg.trainer.accelerator)


def add_monitored_metric(cfg: DictConfig) -> None:
    """Adds the metric that `monitor` names, such as `val/macro_f1`, from conf/metrics/. Raises UserError if unknown."""
    name, metrics = str(cfg.monitor).rpartition("/")[2], cfg.get("metrics") or {}
    files = {path.stem: path for path in sorted((PROJECT / "conf" / "metrics").glob("*.yaml")) if path.stem != "none"}
    names = dict.fromkeys(("acc", "loss", *metrics, *files))
    known = [f"{split}/{each}" for split in ("val", "train") for each in names]
    if cfg.monitor is not None and cfg.monitor not in known:
        raise UserError(f"monitor={as_typed(cfg.monitor)}: no such metric; expected one of {', '.join(known)}.")
    if name in files and name not in metrics:
        with open_dict(cfg):
            cfg.metrics = {**metrics, **OmegaConf.load(files[name])}


def suggest_balance(data: ImageDataModule) -> None:
    """Logs a line if a class has more than three times the training images of another one that has some."""
    counts = Counter(data.labels[data.splits["train"]].tolist()).most_common()
    (large, most), (small, fewest) = counts[0], counts[-1]
    if data.balance == "none" and most > 3 * fewest:
        sizes = f"{most:,} training images of {data.class_names[large]}, but {fewest:,} of {data.class_names[small]}"
        ways = "data.balance=sampler or data.balance=weights balances them"
        rank_zero_info(
            f"{sizes}: {ways}, monitor=val/balanced_acc chooses the epoch that is best for all classes alike"
        )


def recorded(cfg: DictConfig) -> dict[str, Any]:
    """The values of the config, but the interpolations that name the run's folder, its seed or its monitor.

    So a folder may be moved, and its run repeated elsewhere, with another seed or monitor.
    """

    def merge(raw: Any, value: Any) -> Any:
        if isinstance(raw, dict):
            return {key: merge(each, value[key]) for key, each in raw.items() if key != "overrides"}
        kept = isinstance(raw, str) and any(name in raw for name in (OUTPUT_DIR, "${seed}", "${monitor"))
        return raw if kept else value

    return merge(OmegaConf.to_container(cfg), OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))


def build_and_train(cfg: DictConfig, folder: RunFolder, is_single: bool, command: list[str], started: float) -> float:
    """Builds everything, what is cheap first, and trains it."""
    of_classifier: dict[str, Any] = {
        "optimizer": build(cfg, "optimizer", try_with=([torch.nn.Parameter(torch.zeros(1))],)),
        "schedule": build(cfg, "scheduler"),
        "objective": build(cfg, "objective"),
        "metrics": build_all(cfg, "metrics"),
    }
    trainer = build_trainer(cfg, folder)
    if trainer.world_size > 1 and not is_single:
        raise UserError("trainer: several devices in a sweep are not supported; use one, or start single runs.")
    data = build_data(cfg)
    data.list_images()
    pl.seed_everything(cfg.seed, verbose=False)  # initial weights; everything else is a function of seed, epoch, ...
    network = build(cfg, "model", num_classes=len(data.class_names), image_size=data.preprocessing.image_size)
    model = Classifier(network, data.class_names, data.preprocessing, seed=cfg.seed, **of_classifier)
    last = folder.last if folder.last.exists() else None
    of_training: dict[str, Any] = dict(compile=cfg.trainer.compile, resume=last, monitor=cfg.monitor, test=cfg.test)
    if not cfg.find_lr:
        check_training(data, model, trainer, **of_training)
    data.setup()
    suggest_balance(data)
    folder.record(data, attempt(command, PROJECT, trainer.strategy.root_device), cfg.repeats)
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    logged_settings = {
        **plain["choices"],
        "augment": cfg.data.augment,
        "epochs": cfg.trainer.max_epochs,
        "seed": cfg.seed,
        "lr": plain["optimizer"].get("lr"),
        "other": {group: plain[group] for group in ("data", "model", "optimizer", "scheduler", "trainer")},
    }
    try:
        if cfg.find_lr:
            return find_lr(data, model, trainer)
        return train(data, model, trainer, logged_settings, started=started, **of_training)["monitor_best"]
    except MisconfigurationException as error:
        raise UserError(f"trainer: {error}") from error
    except SystemExit as error:  # Lightning's, after an interrupt
        raise KeyboardInterrupt from error
    finally:
        for adapter in adapters(trainer):
            adapter.finish()


def find_lr(data: ImageDataModule, model: Classifier, trainer: pl.Trainer) -> float:
    """Searches a learning rate in the place of the training. Returns it, NaN if there is no suggestion."""
    rate = find_learning_rate(data, model, trainer).suggestion
    ways = f"To train with it: optimizer.lr={rate:.1e} in the place of find_lr=true. " if rate else ""
    rank_zero_info(f"{ways}The curve: {Path(trainer.default_root_dir, 'lr_find.png')}")
    return rate or math.nan


def build_trainer(cfg: DictConfig, folder: RunFolder) -> pl.Trainer:
    """The trainer of a run, with callbacks and loggers. `trainer.compile` is not an argument of it, but of `train`."""
    with name_keys(cfg):
        check_types(train, {"compile": cfg.trainer.compile, "test": cfg.test, "monitor": cfg.monitor})
        check_types(Classifier, {"seed": cfg.seed})
        if isinstance(cfg.trainer.accelerator, str):  # else `build` says so
            check_accelerator(cfg.trainer.accelerator)
    callbacks = [RunGuard(folder), *build_all(cfg, "callbacks").values()]
    callbacks = [each for each in callbacks if sys.stdout.isatty() or not isinstance(each, ProgressBar)]
    given: dict[str, Any] = {
        "callbacks": callbacks,
        "plugins": [BackgroundWriter(CheckpointFile(folder.stamp))],
        "logger": list(build_all(cfg, "logger").values()),
        # Lightning adds its own unless it is told not to.
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
    }
    if ignored := given.keys() & cfg.trainer.keys():
        ways = (
            "the groups callbacks and logger decide this, such as callbacks=none, logger=none or '~callbacks.progress'"
        )
        raise UserError(f"trainer.{min(ignored)}: {ways}.")
    if cfg.trainer.devices == 1 and (gpu := gpu_of_worker(cfg.trainer.accelerator)):
        given["devices"] = gpu
    return build(cfg, "trainer", leave_out=("compile",), **given)
