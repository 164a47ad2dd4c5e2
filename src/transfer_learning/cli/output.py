"""What reaches the terminal: closed streams, characters that an encoding lacks, and Lightning's notices."""

import io
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LIGHTNING_LOGGER = "pytorch_lightning.utilities.rank_zero"  # `rank_zero_info` logs with it
NOTICES = r"TPU available: |💡 Tip|to estimate number of stepping|`weights_only` was not set|\.lr_find_"
DEVICE_NOTICES = "PU available: |Automatic Mixed Precision"


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Ends the block if the reader of stdout, such as `head`, has closed it; what is printed later is dropped."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end


@contextmanager
def exit_at_broken_pipe() -> Iterator[None]:
    """Exits with 1 if the reader of stdout has closed it.

    The end of the block flushes stdout: an error of the flush at the interpreter's end would be printed.
    """
    with ignore_broken_pipe():
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return
    sys.exit(1)


def open_streams() -> None:
    """Makes every text printable: what an encoding lacks becomes an escape such as `\\u2013`.

    Streams that the shell has closed (`>&-`) are opened, so that writing to them does nothing.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the process ends)
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def without_notices(record: logging.LogRecord) -> bool:
    """A filter of logging, which hides what Lightning says and nobody needs."""
    return not re.search(NOTICES, record.getMessage())


def without_device_notices(record: logging.LogRecord) -> bool:
    """A filter of logging, which hides Lightning's lines on GPU and precision. Runs show them, verbs do not."""
    return not re.search(DEVICE_NOTICES, record.getMessage())
