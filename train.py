"""The command: composes the config, builds data, model and trainer, calls `train`.

python train.py model=vgg16_frozen data.augment=true
"""

import errno
import gc
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from transfer_learning import resolvers
from transfer_learning.errors import UserError

STARTED = time.perf_counter()  # Python and the imports above take 0.2 s more
COMMAND = ["python", *sys.argv]
# What the user wants of tracebacks, for this process and those that it starts. Hydra shall hand all errors on: they are caught here.
TRACEBACKS = os.environ.setdefault("TRANSFER_LEARNING_TRACEBACKS", os.environ.get("HYDRA_FULL_ERROR", ""))
os.environ["HYDRA_FULL_ERROR"] = "1"
NO_FAULT_OF_THE_CODE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}

log = logging.getLogger("train")
logging.raiseExceptions = False  # a log that a full disk does not take is no second error, and neither is TensorBoard's writer
threading.excepthook = lambda hook: isinstance(hook.exc_value, OSError) or threading.__excepthook__(hook)  # it raises in this thread too
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
        raise (cause if isinstance(cause, UserError) else UserError(f"{node._get_full_key(None)}: {cause or error}")) from cause


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
            log.info(f"{folder.path}: finished already, test accuracy {metrics['test/acc']:.4f}. More trainer.max_epochs extend it.")
            return metrics["val/acc_best"]
        with open_dict(cfg):
            compiled = cfg.trainer.pop("compile")  # not one of Lightning's
        if type(compiled) is not bool:
            raise UserError(f"trainer.compile={compiled}: expected true or false.")
        data = build(cfg.data)
        data.setup()
        pl.seed_everything(cfg.seed, verbose=False)  # initial weights; all else has its own function of (seed, epoch, …)
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
            raise UserError("trainer: several devices within a sweep are not supported; sweep with one device, or start one run at a time.")
        command = COMMAND if alone else ["python", "train.py", *HydraConfig.get().overrides.task]
        folder.record(data, attempt(command, resolvers.PROJECT, trainer.strategy.root_device))
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
        where = f"{hydra_config.runtime.output_dir}: " if isinstance(error, OSError) and not error.filename else ""
        log.error(where + _one_line(error), exc_info=bool(TRACEBACKS) or not _is_the_users(error))
        if hydra_config.mode == RunMode.RUN:
            sys.exit(1)
        return math.nan  # its folder says that it failed; the others go on
    except KeyboardInterrupt:
        resume = f"python train.py resume={shlex.quote(hydra_config.runtime.output_dir)}"
        again = (
            resume if hydra_config.mode == RunMode.RUN else f"the same command with hydra.sweep.dir={shlex.quote(hydra_config.sweep.dir)}"
        )
        log.warning(f"interrupted; epochs that had ended are kept. To go on: {again}")
        raise
    finally:  # the next job of a sweep starts with empty hands
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def _is_the_users(error: Exception) -> bool:
    """Whether a person can mend it without reading code."""
    known = (UserError, OmegaConfBaseException, HydraException)
    return isinstance(error, known) or (isinstance(error, OSError) and error.errno in NO_FAULT_OF_THE_CODE)


def _one_line(error: Exception) -> str:
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: has no value; give it one, {error.full_key}=…"
    return " ".join(str(error).split())


def resume_or_rerun(arguments: list[str]) -> list[str]:
    """`resume=RUN` and `rerun=RUN` as what Hydra takes for it: that run's config in the place of conf/config.yaml.

    Hydra opens a run's folder before it calls `main`, so this is looked at before Hydra starts.

    Raises:
        UserError: no run there; anything beside `resume` but more epochs.
    """
    named = [each for each in arguments if each.startswith(("resume=", "rerun="))]
    if not named:
        return arguments
    key, _, value = named[0].partition("=")
    folder, others = Path(os.path.expanduser(value.strip("'\""))).resolve(), [each for each in arguments if each != named[0]]
    if not all((folder / name).is_file() for name in ("config.yaml", "train.log")):
        raise UserError(f"{named[0]}: no run there; expected a folder below outputs/ with config.yaml and train.log in it.")
    refused = [each for each in others if not each.startswith("trainer.max_epochs=")]
    if key == "resume" and refused:
        raise UserError(f"{' '.join(refused)}: beside resume=… expected nothing but trainer.max_epochs=…; rerun=… takes other settings.")
    quoted = str(folder).replace("'", "\\'")
    place = [f"hydra.run.dir='{quoted}'"] if key == "resume" else []
    return [f"--config-path={folder}", "--config-name=config", *place, *others]


def command_line() -> None:
    """Errors are one line each and exit code 1; Ctrl-C and SIGTERM give the codes that shells expect, 130 and 143."""
    received = signal.SIGINT

    def terminate(number: int, _) -> None:
        nonlocal received
        received = number
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        sys.argv[1:] = resume_or_rerun(sys.argv[1:])
        main()
    except KeyboardInterrupt:
        sys.exit(128 + received)
    except Exception as error:
        told = error.__cause__ if isinstance(error.__cause__, OSError) else error  # logging's, of a folder that cannot be written
        if TRACEBACKS or not _is_the_users(told):
            raise
        sys.exit(" ".join(dict.fromkeys(_one_line(each) for each in (told, told.__cause__) if each)))


if __name__ == "__main__":
    command_line()
