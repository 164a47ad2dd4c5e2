"""Errors on the command line: one line that begins with the config key as the user types it, without a traceback."""

import errno
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from transfer_learning.cli.config_errors import config_message
from transfer_learning.cli.overrides import as_typed, keys_of
from transfer_learning.runs.config import flat
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.text import printable

SYSTEM_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}
SYSTEM_ERRORS |= {errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENOENT}
TRACEBACKS = "TRANSFER_LEARNING_TRACEBACKS"  # HYDRA_FULL_ERROR as the user has set it


@contextmanager
def name_keys(cfg: DictConfig, prefix: str = "") -> Iterator[None]:
    """Turns an ArgumentError of the block into an error about the config key that sets the argument.

    `prefix` is the key of the node whose arguments the block uses; "" searches the whole config for the argument.
    """
    try:
        yield
    except (ArgumentError, OmegaConfBaseException) as error:
        cause: Any = error
        while cause and not isinstance(cause, ArgumentError):  # OmegaConf wraps the error of a resolver
            cause = cause.__cause__ or cause.__context__
        if not cause and isinstance(error, MissingMandatoryValue):
            raise UserError(one_line(error)) from error  # also the text of the run's file FAILED
        if not cause:
            raise
        key, typed = config_key(cfg, cause.argument, cause.value, prefix), as_typed(cause.value)
        is_unquoted = "a valid string" in cause.message and isinstance(cause.value, (bool, int, float))
        hint = f""" In quotes it is one: "{key}='{typed}'\"""" if is_unquoted else ""
        raise UserError(f"{key}={typed}: {cause.message}{hint}") from cause


def config_key(cfg: DictConfig, argument: str, value: Any, prefix: str = "") -> str:
    """The key that sets an argument: that below `prefix`, else the one with the argument's name (and value)."""
    raw = flat(OmegaConf.to_container(cfg))  # type: ignore[arg-type]
    key = f"{prefix}.{argument}" if prefix else argument
    if key not in raw or not prefix:
        named = [each for each in raw if each.rpartition(".")[2] == argument]
        named.sort(key=lambda each: (str(OmegaConf.select(cfg, each)) != str(value), each.startswith("recipe.")))
        key = named[0] if named else key
    while (source := _referenced_key(raw.get(key))) in raw:  # order_seed: ${seed}
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
        if source.startswith("recipe.") and source not in keys_of(overrides):
            break
        key = source
    return key


def _referenced_key(value: Any) -> str | None:
    """The key that a value such as ${seed} refers to; None for other values."""
    found = re.fullmatch(r"\$\{([^{}]+)\}", str(value))
    return found[1] if found else None


def one_line(error: BaseException, place: str = "", folder_key: str = "") -> str:
    """An error's message on one line.

    `place` is the file or folder of a system error that names none, `folder_key` sets another folder.
    """
    if message := config_message(error):
        return printable(message)
    if isinstance(error, BrokenProcessPool):
        ways = "Fewer jobs at a time (hydra.launcher.n_jobs) need less memory; the same command does what is missing."
        return f"a process of the sweep was killed, perhaps because memory ran out. {ways}"
    if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
        way = {errno.ENAMETOOLONG: "Choose a shorter name", errno.ENOENT: "Make its folder"}.get(error.errno)
        ways = f"{way or 'Make room or make it writable'}, or choose another folder"
        if folder_key:
            ways += f": {folder_key}=..."
        return printable(f"{error.filename or place}: {error.strerror}. {ways}.")
    return printable(" ".join(str(error).split()))


def data_hint(message: str) -> str:
    """What to add to an error about the images if `data.root` was typed, but `data` was not; else ""."""
    hydra_config = HydraConfig.get()
    hint = assumed_data(hydra_config.overrides.task, hydra_config.runtime.choices.get("data"))
    return hint if message.startswith("data.") else ""


def assumed_data(overrides: Iterable[str], chosen: str | None) -> str:
    """What `data` is because it was not typed, if `data.root` was; else "". `chosen` is the name of its file."""
    keys = keys_of(overrides)
    is_default = chosen == "dogs_vs_cats" and "data" not in keys and "data.root" in keys
    return " Without data=image_folder (or data=table), the images are those of Dogs vs Cats." if is_default else ""


def is_user_error(error: BaseException) -> bool:
    """Whether the user can correct it, so that one line is enough."""
    known = isinstance(error, (UserError, OmegaConfBaseException, HydraException, BrokenProcessPool))
    return known or (isinstance(error, OSError) and error.errno in SYSTEM_ERRORS)


def tracebacks_wanted() -> bool:
    """Whether the user has set HYDRA_FULL_ERROR=1."""
    return os.environ.get(TRACEBACKS, os.environ.get("HYDRA_FULL_ERROR")) == "1"


def pass_on_errors() -> None:
    """Makes Hydra raise errors instead of showing them; the user's HYDRA_FULL_ERROR is kept in another variable."""
    os.environ.setdefault(TRACEBACKS, os.environ.get("HYDRA_FULL_ERROR", ""))
    os.environ["HYDRA_FULL_ERROR"] = "1"
