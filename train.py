"""The command: composes the config, builds data, model and trainer, calls `train`.

python train.py model=vgg16_frozen data.augment=true
"""

import gc
import logging
import os
import re
import sys
import time
import traceback

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from transfer_learning import resolvers
from transfer_learning.errors import UserError

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
        raise (cause if isinstance(cause, UserError) else UserError(f"{node._get_full_key(None)}: {cause or error}")) from cause


def run(cfg: DictConfig) -> float:
    """Builds everything that `cfg` describes, trains it, and returns the best validation accuracy."""
    import pytorch_lightning as pl  # torch is imported only when something is trained
    from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
    from pytorch_lightning.utilities.exceptions import MisconfigurationException
    from tqdm.contrib.logging import logging_redirect_tqdm

    from transfer_learning.checkpoint import CheckpointFile
    from transfer_learning.hardware import gpu_of_worker, native_precision
    from transfer_learning.models.classifier import Classifier
    from transfer_learning.training import train

    started = STARTED if HydraConfig.get().mode == RunMode.RUN else time.perf_counter()
    with open_dict(cfg):
        compiled = cfg.trainer.pop("compile")  # not one of Lightning's
    if type(compiled) is not bool:
        raise UserError(f"trainer.compile={compiled}: expected true or false.")
    if cfg.trainer.precision == "auto":
        cfg.trainer.precision = native_precision(cfg.trainer.accelerator)
    with logging_redirect_tqdm():  # a line logged while a progress bar stands does not tear it
        data = build(cfg.data)
        data.setup()
        pl.seed_everything(cfg.seed, verbose=False)  # initial weights; all else has its own function of (seed, epoch, …)
        network = build(cfg.model, num_classes=len(data.class_names), image_size=data.image_size)
        optimizer, schedule = build(cfg.optimizer), build(cfg.scheduler)
        model = Classifier(network, data.class_names, data.image_size, optimizer, schedule, cfg.seed)
        callbacks = [build(callback) for callback in cfg.callbacks.values()]
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
        if trainer.world_size > 1 and HydraConfig.get().mode == RunMode.MULTIRUN:
            raise UserError("trainer: several devices within a sweep are not supported; sweep with one device, or start one run at a time.")
        try:
            return train(data, model, trainer, _settings(cfg), compiled, started)["val/acc_best"]
        except MisconfigurationException as error:
            raise UserError(f"trainer: {error}") from error


def _settings(cfg: DictConfig) -> dict:
    """What TensorBoard's HPARAMS tab shows beside the results: its first five columns, by name, and all the rest."""
    choices, plain = HydraConfig.get().runtime.choices, OmegaConf.to_container(cfg, resolve=True)
    return {
        "augment": plain["data"]["augment"],
        "epochs": plain["trainer"]["max_epochs"],
        "lr": plain["optimizer"].get("lr"),
        "model": choices.model,
        "optimizer": choices.optimizer,
        "other": {group: plain[group] for group in ("data", "model", "optimizer", "scheduler", "trainer")},
        "seed": cfg.seed,
    }


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float:
    _ = resolvers  # a launcher's process unpickles this function, and with it imports them, before it composes its job
    try:
        return run(cfg)
    except Exception as error:
        mistake = isinstance(error, (UserError, OmegaConfBaseException)) and not os.environ.get("HYDRA_FULL_ERROR")
        log.error(error, exc_info=not mistake)
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            sys.exit(1)
        traceback.clear_frames(error.__traceback__)  # Hydra keeps a failed job's exception: that must not keep the job's model
        raise CompactHydraException(str(error)) from error
    finally:  # the next job of a sweep starts with empty hands
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


if __name__ == "__main__":
    main()
