"""Files that are either complete or absent."""

import csv
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

ATTEMPTS = 20 if sys.platform == "win32" else 1  # to replace a file, in a second


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block ends and its content is on the disk.

    If the block raises or the process dies, `path` keeps its old content. A killed process leaves `NAME.partial`, which
    the next write overwrites. Raises OSError.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        replace(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    finally:
        partial.unlink(missing_ok=True)


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
    """Writes a UTF-8 text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_csv(path: str | Path, rows: Iterable[Iterable]) -> None:
    """Writes rows, the header first, as a CSV file atomically."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def write_json(path: str | Path, value: dict) -> None:
    """Writes plain values with their SHA-256, so that `read_json` notices every change."""
    write_text(path, json.dumps(value | {"sha256": sha256_of(value)}))


def read_json(path: str | Path) -> dict | None:
    """Reads what `write_json` wrote; None if the file is missing or damaged."""
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
