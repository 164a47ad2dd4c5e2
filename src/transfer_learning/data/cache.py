"""Cached arrays: rows that are computed once, stored in a file and memory-mapped."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from pytorch_lightning.utilities import rank_zero_info
from tqdm import tqdm

from transfer_learning.utilities.errors import ArgumentError
from transfer_learning.utilities.files import read_checked_json, sha256_of, write_checked_json
from transfer_learning.utilities.locks import waiting_lock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CHUNK = 256  # rows that are computed and held in memory at once
HEADER = 128  # bytes before the first row
KEY_LENGTH = 16  # characters of a file's name
PAUSE = 10  # between two writings of the listing, as a multiple of what one takes, since it grows with the rows

Remarks = dict[str, dict[int, Any]]  # kind -> {place of a row: a plain value}
# positions of ids -> (one row each, of any shape and dtype; remarks on places among them)
Compute = Callable[[list[int]], tuple[np.ndarray, Remarks]]


class Rows(NamedTuple):
    array: np.ndarray  # all rows of the file, (R, ...), memory-mapped and read-only
    rows: np.ndarray  # the row of each id, (N,) int64
    remarks: Remarks  # of each kind that `Compute` returns; the places are positions of ids


class CachedArray:
    """An array in a file. Each row has an id; rows are added, never changed.

    The JSON file that lists the rows is replaced atomically after the first chunk, after the last one, and between them
    so often that this takes at most a tenth of the time. So a killed process loses one chunk, or seconds if there are
    many rows; an error loses none. A damaged or foreign file is computed anew (changed numbers in it are not noticed).

    Args:
        folder: it is made if missing.
        name: the beginning of the file's name.
        key: plain values on which every row depends.
        about: what the rows are, in words.
    """

    def __init__(self, folder: str | Path, name: str, key: Mapping, about: str = ""):
        self.folder, self.name, self.about = Path(folder).expanduser(), name, about
        self.header = f"rows {sha256_of(key)}".encode().ljust(HEADER)
        self.path = self.folder / f"{name}-{sha256_of(key)[:KEY_LENGTH]}.rows"

    def get(self, ids: Sequence[str], compute: Compute) -> Rows:
        """The rows of N ids; those that are missing are computed and stored.

        Raises:
            ArgumentError: the folder cannot be written, or new rows have another shape or type (`cache_dir`).
        """
        listed, missing = self._listed(), 0
        if any(each not in listed["ids"] for each in ids):
            with cache_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                with waiting_lock(self.path.with_suffix(".lock"), "computes the same rows"):
                    listed = self._listed()
                    missing = self._append(listed, ids, compute)
        rows = np.array([listed["ids"][each] for each in ids], dtype=np.int64)
        remarks = {
            kind: {n: values[each] for n, each in enumerate(ids) if each in values}
            for kind, values in listed["remarks"].items()
        }
        shape = (len(listed["ids"]), *listed["shape"])
        try:
            with open(self.path, "rb") as file:
                lock_in_use(file)
                array = np.memmap(file, listed["dtype"], mode="r", offset=HEADER, shape=shape)
        except FileNotFoundError:  # another process has just removed it
            return self.get(ids, compute)
        with suppress(OSError):  # the cache may be read-only
            os.utime(self.path)  # when it was last used
        counts = {"found": len(set(ids)) - missing, "computed": missing}
        origin = " and ".join(f"{number:,} rows {state}" for state, number in counts.items() if number)
        rank_zero_info(f"{self.path}: {origin}; {array.nbytes / 1e6:,.1f} MB")
        return Rows(array, rows, remarks)

    def _listed(self) -> dict:
        """{"ids": {id: row}, "remarks": {kind: {id: value}}, "dtype", "shape"} of the rows that are complete."""
        listed = read_checked_json(self.path.with_suffix(".json")) or {}
        with suppress(OSError, KeyError, TypeError, ValueError):
            size = len(listed["ids"]) * math.prod(listed["shape"]) * np.dtype(listed["dtype"]).itemsize
            with open(self.path, "rb") as file:
                if file.read(HEADER) == self.header and os.fstat(file.fileno()).st_size >= HEADER + size:
                    ids = {each: row for row, each in enumerate(listed["ids"])}
                    return listed | {"ids": ids, "remarks": dict(listed["remarks"])}
        return {"ids": {}, "remarks": {}}

    def _append(self, listed: dict, ids: Sequence[str], compute: Compute) -> int:
        """Computes and stores the rows of ids that are missing, and adds them to `listed`. Returns their number."""
        missing = list({each: n for n, each in enumerate(ids) if each not in listed["ids"]}.values())
        if not listed["ids"]:
            self.path.with_suffix(".json").unlink(missing_ok=True)  # first: it must never list other rows
            self.path.unlink(missing_ok=True)  # not truncated: another process may have mapped it
            self.path.write_bytes(self.header)
        saved, due = len(listed["ids"]), 0.0
        # Written, not memory-mapped: on a full disk a write raises, a store into a mapped page kills the process.
        with open(self.path, "r+b") as file, tqdm(total=len(missing), desc=self.name, leave=False, disable=None) as bar:
            try:
                for start in range(0, len(missing), CHUNK):
                    self._append_chunk(file, listed, ids, missing[start : start + CHUNK], compute)
                    bar.update(min(CHUNK, len(missing) - start))
                    begin = time.monotonic()
                    if begin >= due or start + CHUNK >= len(missing):
                        self._save(file, listed)
                        saved, end = len(listed["ids"]), time.monotonic()
                        due = end + PAUSE * (end - begin)
            except BaseException:
                with suppress(OSError):  # of the same full disk
                    if len(listed["ids"]) > saved:
                        self._save(file, listed)
                        saved = len(listed["ids"])
                if not saved:
                    self.path.unlink(missing_ok=True)
                raise
        return len(missing)

    def _append_chunk(
        self, file: BinaryIO, listed: dict, ids: Sequence[str], positions: list[int], compute: Compute
    ) -> None:
        rows, remarks = compute(positions)
        dtype, shape = rows.dtype.str, list(rows.shape[1:])
        if listed["ids"] and (dtype, shape) != (listed["dtype"], listed["shape"]):
            stored = f"the rows of {self.path.name} are {listed['dtype']} {listed['shape']}, new ones {dtype} {shape}"
            raise ArgumentError("cache_dir", str(self.folder), f"{stored}. Remove that file, or choose another folder.")
        file.seek(HEADER + len(listed["ids"]) * rows[0].nbytes)
        file.write(np.ascontiguousarray(rows).data)
        file.flush()
        listed |= {"dtype": dtype, "shape": shape, "about": self.about}
        for kind, values in remarks.items():
            known = listed["remarks"].setdefault(kind, {})
            known |= {ids[positions[place]]: value for place, value in values.items()}
        listed["ids"] |= {ids[n]: row for row, n in enumerate(positions, len(listed["ids"]))}

    def _save(self, file: BinaryIO, listed: dict) -> None:
        """Writes the listing once its rows are on the disk. Raises OSError."""
        os.fsync(file.fileno())
        write_checked_json(self.path.with_suffix(".json"), listed | {"ids": list(listed["ids"])})


@contextmanager
def cache_errors(folder: str | Path) -> Iterator[None]:
    """Turns an OSError of the block into an ArgumentError of `cache_dir`."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror or error}. Free some space there, or choose another folder."
        raise ArgumentError("cache_dir", str(folder), reason) from error


def lock_in_use(file: BinaryIO) -> None:
    """Marks an open file as in use until this process has closed it and all maps of it that were made from it.

    Python's `mmap` keeps a duplicate of the file descriptor, and with it the lock. Without `fcntl`, on Windows, the
    system itself refuses to remove a mapped file.
    """
    if fcntl:
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(file, fcntl.LOCK_SH)


class ArrayFile(NamedTuple):
    """A cached array in a folder."""

    path: Path
    rows: int
    size: int  # bytes
    last_used: float  # seconds since the epoch
    about: str


def list_arrays(folder: str | Path) -> list[ArrayFile]:
    """The cached arrays of a folder, the one that was used last first. Other files are no arrays."""
    found = []
    for path in Path(folder).expanduser().glob(f"*-{'[0-9a-f]' * KEY_LENGTH}.rows"):
        with suppress(FileNotFoundError):  # another process has just removed it
            listed, state = read_checked_json(path.with_suffix(".json")) or {}, path.stat()
            about = listed.get("about", "") if listed else "unfinished or damaged: it will be computed again"
            found.append(ArrayFile(path, len(listed.get("ids", ())), state.st_size, state.st_mtime, about))
    return sorted(found, key=lambda each: -each.last_used)


def remove_unused(path: Path) -> bool:
    """Removes a cached array (its `.rows` file) and its listing, unless a process is using or extending it.

    Returns whether it is gone. Raises OSError.
    """
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0), open(path, "r+b") as file:
            if fcntl:  # NFS locks only files that are open for writing
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink()
        return True
    except FileNotFoundError:  # another process has just removed it
        return True
    except (Timeout, BlockingIOError):
        return False
    except PermissionError:
        if fcntl:
            raise
        return False
