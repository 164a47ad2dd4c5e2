"""Standard output and standard error that are closed, that nobody reads, or that lack characters."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """Ends the block if the reader of stdout, such as `head`, has closed it; what is printed later is dropped."""
    try:
        yield
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end


def open_streams() -> None:
    """Makes every text printable: what an encoding lacks becomes an escape such as `\\u2013`.

    Streams that the shell has closed (`>&-`) are opened, so that writing to them does nothing.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the process ends)
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")
