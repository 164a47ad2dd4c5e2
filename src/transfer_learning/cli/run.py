"""Runs one job of Hydra's: a single run, or one of a sweep."""

import gc
import logging
import math
import shlex
import sys
import traceback
from contextlib import suppress

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from transfer_learning.cli import resolvers, shell
from transfer_learning.cli.errors import is_users, one_line

log = logging.getLogger("train")


def run(cfg: DictConfig) -> float:
    """Trains what `cfg` describes. Returns the best value of the monitored metric, NaN if a job of a sweep fails.

    An error that the user can correct is logged on one line, with its traceback only in train.log.
    """
    assert resolvers  # a launcher's process imports the modules that this function names before it composes its job
    shell.configure_process()
    hydra_config = HydraConfig.get()
    single, folder = hydra_config.mode == RunMode.RUN, hydra_config.runtime.output_dir
    try:
        from transfer_learning.cli.job import run_job  # imports torch, for which --help should not wait

        return run_job(cfg, single)
    except Exception as error:
        log.error(one_line(error, folder), exc_info=not is_users(error))
        if is_users(error):
            with suppress(OSError), open(f"{folder}/train.log", "a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        if single:
            sys.exit(1)
        return math.nan  # the other jobs of the sweep go on
    except KeyboardInterrupt:
        again = f"the same command with hydra.sweep.dir={shlex.quote(hydra_config.sweep.dir)}"
        again = f"python train.py resume={shlex.quote(folder)}" if single else again
        log.warning(f"interrupted; the epochs that had ended are kept. To go on: {again}")
        raise
    finally:  # free memory before the next job
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()
