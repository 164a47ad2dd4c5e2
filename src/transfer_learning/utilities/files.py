"""Files and folders that are either complete or absent."""

import csv
import hashlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

PARTIAL, LONGEST = ".partial", 255  # end of a temporary name, and bytes of a name
ATTEMPTS = 20 if sys.platform == "win32" else 1  # to replace a file, in a second


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends and its content is on the disk.

    If the block raises or the process dies, `path` keeps its old content. A killed process leaves `NAME.partial`, which
    the next write overwrites. A symbolic link stays, and the file that it leads to is written. Raises OSError.
    """
    real = Path(os.path.realpath(path))
    is_long = len(os.fsencode(real.name)) > LONGEST - len(PARTIAL)
    partial = real.with_name((sha256_of(real.name) if is_long else real.name) + PARTIAL)
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(partial, real)
    except OSError as error:
        if error.filename in (None, str(partial)):  # a full disk names none
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def atomic_folder(path: str | Path, last: str, replaced: Iterable[str] = ()) -> Iterator[Path]:
    """Makes a temporary folder whose files move to the folder `path` when the block ends.

    The file `last` is the first that is removed and the last that appears, so it is only beside files of its own block;
    `replaced` are names of further old files to remove. Other files in `path` stay. If the block raises or the process
    dies in it, `path` is as it was; a killed process leaves `.partial-ID` there. Raises OSError.
    """
    real = Path(os.path.realpath(path))
    place = real if real.is_dir() else real.parent  # on the same file system
    place.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=f"{PARTIAL}-", dir=place, ignore_cleanup_errors=True) as private:
            partial = Path(private, "new")  # not only its owner may read it
            partial.mkdir()
            yield partial
            if not real.exists():
                os.rename(partial, real)
                return
            for name in [last, *replaced]:
                (real / Path(name).name).unlink(missing_ok=True)
            for file in sorted(partial.iterdir(), key=lambda file: file.name == last):
                replace(file, real / file.name)
    except OSError as error:
        if f"{PARTIAL}-" in str(error.filename):
            error.filename = os.path.join(path, os.path.basename(error.filename))
        raise


def replace(source: Path, target: Path) -> None:
    """`os.replace`. Windows refuses it while another program, such as a virus scanner, reads the target for a moment.

    Raises OSError.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return os.replace(source, target)
        except PermissionError:
            time.sleep(0.05)
    os.replace(source, target)


def write_text(path: str | Path, text: str) -> None:
    """Writes a UTF-8 text file atomically; halves of a character become escapes, as in `printable`."""
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_csv(path: str | Path, rows: Iterable[Iterable]) -> None:
    """Writes rows, the header first, as a CSV file atomically."""
    with atomic_write(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        csv.writer(text).writerows(rows)
        text.detach()  # writes the rest, and leaves the file open


def write_checked_json(path: str | Path, value: dict) -> None:
    """Writes plain values with their SHA-256, so that `read_checked_json` notices every change."""
    write_text(path, json.dumps(value | {"sha256": sha256_of(value)}))


def read_checked_json(path: str | Path) -> dict | None:
    """Reads what `write_checked_json` wrote; None if the file is missing or damaged."""
    try:
        value = json.loads(Path(path).read_bytes())
        return value if value.pop("sha256") == sha256_of(value) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def file_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file's bytes. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(value: object) -> str:
    """SHA-256 (hex) of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
