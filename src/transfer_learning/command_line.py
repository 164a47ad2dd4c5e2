"""What a shell sees of `train.py`: `resume=` and `rerun=`, errors on one line, exit codes."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from transfer_learning.errors import NO_FAULT_OF_THE_CODE, UserError, first_line, one_line
from transfer_learning.resolvers import PROJECT

COMMAND = ["python", *sys.argv]
# What the user wants of tracebacks, for this process and those that it starts. Hydra shall hand all errors on: they are caught here.
TRACEBACKS = os.environ.setdefault("TRANSFER_LEARNING_TRACEBACKS", os.environ.get("HYDRA_FULL_ERROR", ""))
os.environ["HYDRA_FULL_ERROR"] = "1"
BESIDE_RESUME = {"trainer.max_epochs", "data.cache_dir", "data.download_to"}  # more epochs, and where things are kept

logging.raiseExceptions = (
    False  # a log that a full disk does not take is no second error, and neither is TensorBoard's writer
)
threading.excepthook = lambda hook: (
    isinstance(hook.exc_value, OSError) or threading.__excepthook__(hook)
)  # it raises in this thread too


def call(main: Callable[[], None]) -> None:
    """Calls Hydra's `main` and exits: with 1 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
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
        told = (
            error.__cause__ if isinstance(error.__cause__, OSError) else error
        )  # logging's, of a folder that cannot be written
        if wants_traceback(told):
            raise
        sys.exit(" ".join(dict.fromkeys(one_line(each) for each in (told, told.__cause__) if each)))


def resume_or_rerun(arguments: list[str]) -> list[str]:
    """`resume=RUN` and `rerun=RUN` as what Hydra takes for it: that run's config in the place of conf/config.yaml.

    Hydra opens a run's folder before it calls `main`, so this is looked at before Hydra starts.

    Raises:
        UserError: no run there, or its config is damaged; beside `resume` what would change the run, beside `rerun` a group.
    """
    named = [each for each in arguments if each.startswith(("resume=", "rerun="))]
    if not named:
        return arguments
    key, _, value = named[0].partition("=")
    folder, others = (
        Path(os.path.expanduser(value.strip("'\""))).resolve(),
        [each for each in arguments if each != named[0]],
    )
    config = folder / "config.yaml"
    if not config.is_file() or not (folder / "train.log").is_file():
        raise UserError(
            f"{named[0]}: no run there; expected a folder below outputs/ with config.yaml and train.log in it."
        )
    try:
        OmegaConf.load(config)["hydra"]
    except Exception as error:  # PyYAML's and OmegaConf's many
        raise UserError(f"{config}: damaged ({first_line(error)}). Put back what a run left there.") from error
    refused = [each for each in others if each.partition("=")[0] not in BESIDE_RESUME]
    if key == "resume" and refused:
        raise UserError(
            f"{' '.join(refused)}: beside resume=… expected nothing but trainer.max_epochs=…; rerun=… takes other settings."
        )
    if groups := [
        each for each in others if (PROJECT / "conf" / each.partition("=")[0].lstrip("+~")).is_dir() and "=" in each
    ]:
        raise UserError(
            f"{' '.join(groups)}: beside rerun=… expected single values, like optimizer.lr=1e-3, since a group was composed when the run "
            f"began. Take the command from {folder}/provenance.json, and change that."
        )
    quoted = str(folder).replace("'", "\\'")
    place = f"hydra.run.dir='{quoted}'" if key == "resume" else f"repeats='{quoted}'"
    return [
        f"--config-path={folder}",
        "--config-name=config",
        *(place if each == named[0] else each for each in arguments),
    ]


def wants_traceback(error: Exception) -> bool:
    """Whether somebody who reads code must mend it, or has asked for it."""
    known = isinstance(error, (UserError, OmegaConfBaseException, HydraException))
    return bool(TRACEBACKS) or not (known or (isinstance(error, OSError) and error.errno in NO_FAULT_OF_THE_CODE))
