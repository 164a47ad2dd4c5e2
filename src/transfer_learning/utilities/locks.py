"""Locks between processes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_info

WAIT = 60.0  # seconds between two messages of a process that waits


@contextmanager
def waiting_lock(path: Path, reason: str) -> Iterator[None]:
    """Holds a lock. While another process has it, says after two seconds and each minute that it waits, and why."""
    lock, since, timeout = FileLock(path), time.strftime("%H:%M:%S"), 2.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            timeout = WAIT
            rank_zero_info(f"{path}: waiting since {since} for another process, which {reason}")
    try:
        yield
    finally:
        lock.release()
