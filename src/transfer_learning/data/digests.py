"""SHA-256 of files. A file that has not changed is not read again."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transfer_learning.utilities.files import file_sha256, read_checked_json, write_checked_json
from transfer_learning.utilities.locks import waiting_lock

UNREADABLE = "unreadable"
SETTLED_NS = 2 * 10**9  # a file that changed within the last two seconds may change again with the same time stamp


class FileDigests:
    """Computes digests of files and keeps them in `folder/digests.json`.

    A kept digest is used if the file's size, inode, modification time and change time (ns) are the same, and both times
    are at least two seconds old.

    Args:
        folder: it is made if missing; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None = None):
        self.file = Path(folder).expanduser() / "digests.json" if folder is not None else None

    def __call__(self, paths: Sequence[Path]) -> list[str]:
        """SHA-256 (hex) of each file; for one that cannot be read, a text that begins with `UNREADABLE`."""
        kept = (read_checked_json(self.file) if self.file else None) or {}
        keys, states = [os.path.abspath(path) for path in paths], [_state(path) for path in paths]
        digests = {key: kept[key][-1] for key, state in zip(keys, states) if state and kept.get(key, [])[:-1] == state}
        missing = {key: path for key, path in zip(keys, paths) if key not in digests}
        with ThreadPoolExecutor() as pool:
            digests |= zip(missing, pool.map(_sha256, missing.values()))
        readable = {key: state for key, state in zip(keys, states) if not digests[key].startswith(UNREADABLE)}
        new = {key: [*state, digests[key]] for key, state in readable.items() if state and key in missing}
        if new and self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with waiting_lock(self.file.with_suffix(".lock"), "adds its digests"):
                write_checked_json(self.file, (read_checked_json(self.file) or {}) | new)
        return [digests[key] for key in keys]


def _state(path: Path) -> list[int] | None:
    """Size, inode and times of a file; None if it changed a moment ago or cannot be found."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    settled = max(found.st_mtime_ns, found.st_ctime_ns) < time.time_ns() - SETTLED_NS
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns] if settled else None


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:  # the image stays in the list; decoding it fails too and names it in the log
        return f"{UNREADABLE} {path} {error.errno}"
