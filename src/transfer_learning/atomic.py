"""Files that are complete or not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, beside `path`, which it replaces when the block ends and all is on the disk.

    However the process dies, `path` holds what it held before, or all of the new; a failure leaves nothing else behind.
    A process that is killed leaves `NAME.partial`, which the next write of that name takes over. Raises OSError as the system does.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
