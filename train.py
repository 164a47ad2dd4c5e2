"""The command: composes the config, builds data, model and trainer, calls `train`.

python train.py model=vgg16_frozen data.augment=true
"""

import gc
import logging
import math
import os
import re
import shlex
import sys
import time
import traceback
from contextlib import suppress

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from transfer_learning import command_line, resolvers
from transfer_learning.errors import UserError, one_line

STARTED = time.perf_counter()  # Python and the imports above take 0.2 s more
log = logging.getLogger("train")
# Lightning's advertisements and estimates are not this run's news.
logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(
    lambda record: not re.search("💡 Tip|to estimate number of stepping", record.getMessage())
)


def build(node: DictConfig, **arguments):
    """The one place where config becomes objects. Lists and dicts arrive as plain Python's."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:  # Hydra's wrapping names the class, the user typed the key
        cause = error.__cause__
        raise (
            cause if isinstance(cause, UserError) else UserError(f"{node._get_full_key(None)}: {cause or error}")
        ) from cause


def run(cfg: DictConfig) -> float:
    """Builds everything that `cfg` describes, trains it, and returns the best validation accuracy.

    What the run's folder holds decides how: a run that has finished there is not repeated, one that has not goes on.
    """
    import pytorch_lightning as pl  # torch is imported only when something is trained
    from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
    from pytorch_lightning.utilities.exceptions import MisconfigurationException
    from tqdm.contrib.logging import logging_redirect_tqdm

    from transfer_learning.checkpoint import CheckpointFile
    from transfer_learning.hardware import gpu_of_worker
    from transfer_learning.models.classifier import Classifier
    from transfer_learning.provenance import attempt
    from transfer_learning.run_folder import RunFolder
    from transfer_learning.training import train

    alone = HydraConfig.get().mode == RunMode.RUN
    started = STARTED if alone else time.perf_counter()
    folder = RunFolder(HydraConfig.get().runtime.output_dir)
    with folder.occupied(), logging_redirect_tqdm():  # a line logged while a progress bar stands does not tear it
        _settle(cfg, folder.config())
        folder.agree(cfg, OmegaConf.load(resolvers.PROJECT / "conf/config.yaml").hydra, alone)
        if metrics := folder.metrics():
            more = " More trainer.max_epochs extend it." if alone else ""
            log.info(f"{folder.path}: finished already, test accuracy {metrics['test/acc']:.4f}.{more}")
            return metrics["val/acc_best"]
        with open_dict(cfg):
            compiled = cfg.trainer.pop("compile")  # not one of Lightning's
        if type(compiled) is not bool:
            raise UserError(f"trainer.compile={compiled}: expected true or false.")
        data = build(cfg.data)
        data.setup()
        pl.seed_everything(
            cfg.seed, verbose=False
        )  # initial weights; all else has its own function of (seed, epoch, …)
        network = build(cfg.model, num_classes=len(data.class_names), image_size=data.image_size)
        optimizer, schedule = build(cfg.optimizer), build(cfg.scheduler)
        model = Classifier(network, data.class_names, data.image_size, optimizer, schedule, cfg.seed)
        callbacks = [build(callback) for callback in cfg.callbacks.values()]
        callbacks = [each for each in callbacks if sys.stdout.isatty() or not isinstance(each, ProgressBar)]
        trainer = build(
            cfg.trainer,
            devices=(cfg.trainer.devices == 1 and gpu_of_worker(cfg.trainer.accelerator)) or cfg.trainer.devices,
            callbacks=callbacks,
            plugins=[CheckpointFile()],
            logger=[build(logger) for logger in cfg.logger.values()],
            # Lightning adds its own where none is named
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        )
        if trainer.world_size > 1 and not alone:
            raise UserError(
                "trainer: several devices within a sweep are not supported; sweep with one device, or start one run at a time."
            )
        command = command_line.COMMAND if alone else ["python", "train.py", *HydraConfig.get().overrides.task]
        folder.record(data, attempt(command, resolvers.PROJECT, trainer.strategy.root_device), cfg.repeats)
        try:
            resume = folder.last if folder.last.exists() else None
            return train(data, model, trainer, _settings(cfg), compiled, started, resume)["val/acc_best"]
        except MisconfigurationException as error:
            raise UserError(f"trainer: {error}") from error
        except SystemExit as error:  # Lightning's, of an interrupt
            raise KeyboardInterrupt from error


def _settle(cfg: DictConfig, before: dict | None) -> None:
    """Turns what depends on this machine and this moment into values: what began in one precision goes on in it everywhere."""
    from transfer_learning.hardware import native_precision

    if cfg.sweep is not None and HydraConfig.get().mode == RunMode.RUN:
        raise UserError(f"sweep={cfg.sweep}: names a multirun; add -m.")
    cfg.sweep = None  # it has done its work: a job is a run like any other
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = before["trainer"]["precision"] if before else native_precision(cfg.trainer.accelerator)
    for group, key in (("data", "root"), ("data", "download_to"), ("data", "cache_dir"), ("model", "weights")):
        path = str(cfg[group].get(key) or "")
        if path and (group == "data" or re.search(r"[./\\]", path)):  # weights may be a name
            cfg[group][key] = os.path.abspath(os.path.expanduser(path))


def _settings(cfg: DictConfig) -> dict:
    """What TensorBoard's HPARAMS tab shows beside the results: its first five columns, by name, and all the rest."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    return {
        "augment": plain["data"]["augment"],
        "epochs": plain["trainer"]["max_epochs"],
        "lr": plain["optimizer"].get("lr"),
        "model": cfg.choices.model,
        "optimizer": cfg.choices.optimizer,
        "other": {group: plain[group] for group in ("data", "model", "optimizer", "scheduler", "trainer")},
        "seed": cfg.seed,
    }


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    _ = resolvers  # a launcher's process unpickles this function, and with it imports them, before it composes its job
    hydra_config = HydraConfig.get()
    try:
        return run(cfg)
    except Exception as error:
        shown = command_line.wants_traceback(error)
        log.error(one_line(error, hydra_config.runtime.output_dir), exc_info=shown)
        if not shown:  # then it stands in the log alone
            with suppress(OSError), open(f"{hydra_config.runtime.output_dir}/train.log", "a") as file:
                traceback.print_exc(file=file)
        if hydra_config.mode == RunMode.RUN:
            sys.exit(1)
        return math.nan  # its folder says that it failed; the others go on
    except KeyboardInterrupt:
        alone = f"python train.py resume={shlex.quote(hydra_config.runtime.output_dir)}"
        swept = f"the same command with hydra.sweep.dir={shlex.quote(hydra_config.sweep.dir)}"
        again = alone if hydra_config.mode == RunMode.RUN else swept
        log.warning(f"interrupted; epochs that had ended are kept. To go on: {again}")
        raise
    finally:  # the next job of a sweep starts with empty hands
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


if __name__ == "__main__":
    command_line.call(main)
