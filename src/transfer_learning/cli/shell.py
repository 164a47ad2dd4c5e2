"""What a shell sees of the program: one job at a time, signals, exit codes, and errors without tracebacks."""

import gc
import logging
import math
import os
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from transfer_learning.cli import resolvers  # noqa: F401 (registers the functions that conf/ calls)
from transfer_learning.cli.arguments import check_folder, prepare, repeated_keys
from transfer_learning.cli.errors import data_hint, is_user_error, one_line, pass_on_errors, tracebacks_wanted
from transfer_learning.cli.imports import import_lightning
from transfer_learning.cli.output import LIGHTNING_LOGGER, exit_at_broken_pipe, open_streams, without_notices
from transfer_learning.cli.overrides import as_override
from transfer_learning.cli.project import check_installation
from transfer_learning.utilities.errors import UserError

FOLDER_KEY = "hydra.run.dir"
GRACE = 10.0  # seconds for the first process of a run: Lightning kills it when it finds that another one has failed
REPEATED = 1.0  # seconds in which further SIGTERMs belong to the first one
log = logging.getLogger("train")
invocation = SimpleNamespace(command=[], started=0.0)  # of this process: the command as typed, and when it began


def call(main: Callable[[], None]) -> None:
    """Calls Hydra's `main` and exits: with 1 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
    invocation.command, invocation.started = ["python", *sys.argv], time.perf_counter()
    received, when = signal.SIGINT, -math.inf

    def interrupt(number: int, _) -> None:
        nonlocal received, when
        if time.monotonic() - when < REPEATED:  # another exception would cut off what the first one has begun
            return
        received, when = signal.Signals(number), time.monotonic()
        raise KeyboardInterrupt

    def interrupt_again(lost: Any) -> None:
        """Python drops exceptions in finalizers and in callbacks of weak references, after it has called this."""
        nonlocal when
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            return sys.__unraisablehook__(lost)
        when = -math.inf
        threading.Timer(0.1, os.kill, (os.getpid(), received)).start()

    if _is_started_by_another():
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGTERM, interrupt)
    sys.unraisablehook = interrupt_again
    open_streams()
    configure_messages()
    try:
        check_installation()
        remarks = [] if _is_started_by_another() else repeated_keys(sys.argv[1:])
        sys.argv[1:] = prepare(sys.argv[1:])
        for remark in remarks:
            print(remark, file=sys.stderr)
        with exit_at_broken_pipe():
            main()
    except KeyboardInterrupt:
        sys.exit(128 + received)
    except Exception as error:
        # Hydra's logging wraps the error of a folder that cannot be written.
        shown = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if tracebacks_wanted() or not is_user_error(shown):
            raise
        # Of Hydra's errors, the cause says more. A UserError says all.
        causes = [] if isinstance(shown, UserError) else [shown.__cause__]
        messages = [one_line(each, folder_key=FOLDER_KEY) for each in (shown, *causes) if each]
        sys.exit(" ".join(dict.fromkeys(messages)))  # each once


def _is_started_by_another() -> bool:
    """Whether this is a further process of a distributed run."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _end_with(parent: int) -> None:
    """Ends this process after its parent: without the first process of a run, the others would wait for it for ever.

    Not on Windows, where the parent's id stays the same after its end.
    """
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def run(cfg: DictConfig) -> float:
    """Runs one job of Hydra's. Returns the best value of the monitored metric, NaN if a job of a sweep fails.

    An error that the user can correct is logged on one line, and its traceback is only in train.log.
    """
    configure_messages()
    hydra_config = HydraConfig.get()
    is_single, folder = hydra_config.mode == RunMode.RUN, hydra_config.runtime.output_dir
    try:
        check_folder(f"{FOLDER_KEY if is_single else 'hydra.sweep.dir'}={folder}", folder)
        import_lightning()  # and torch, for which --help should not wait
        from transfer_learning.cli.job import run_job

        if is_single:
            return run_job(cfg, is_single, invocation.command, invocation.started)
        return run_job(cfg, is_single, ["python", "train.py", *hydra_config.overrides.task], time.perf_counter())
    except Exception as error:
        message = one_line(error, folder, FOLDER_KEY)
        shows_traceback = tracebacks_wanted() or not is_user_error(error)
        log.error(message + data_hint(message), exc_info=shows_traceback)
        if not shows_traceback:
            with suppress(OSError), open(f"{folder}/train.log", "a", encoding="utf-8") as file:
                traceback.print_exc(file=file)
        if is_single:
            time.sleep(GRACE if _is_started_by_another() else 0)
            sys.exit(1)
        return math.nan  # the other jobs of the sweep go on
    except KeyboardInterrupt:
        again = f"the same command with {as_override('hydra.sweep.dir', hydra_config.sweep.dir)}"
        if is_single:
            again = f"python train.py resume={shlex.quote(folder)}"
        can_go_on = not is_single or (os.path.exists(f"{folder}/config.yaml") and not cfg.get("find_lr"))
        kept = "no epoch was saved. To begin again" if is_single else "finished jobs are kept. To go on"
        if os.path.exists(f"{folder}/checkpoints/last.ckpt"):
            kept = "the epochs that had ended are kept. To go on"
        hint = f"; {kept}: {again}" if can_go_on else ""
        log.warning(f"interrupted{hint}")
        raise
    finally:  # free memory before the next job
        gc.collect()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def configure_messages() -> None:
    """Sets up which errors and log lines are shown; repeating it is harmless."""
    pass_on_errors()  # `call` shows them
    logging.raiseExceptions = False  # on a full disk, a log line that is lost is no second error ...
    threading.excepthook = _ignore_system_errors  # ... and neither is that of TensorBoard's thread, raised again later
    logging.getLogger(LIGHTNING_LOGGER).addFilter(without_notices)  # adds it once


def _ignore_system_errors(hook: threading.ExceptHookArgs) -> None:
    if not isinstance(hook.exc_value, OSError):
        threading.__excepthook__(hook)
