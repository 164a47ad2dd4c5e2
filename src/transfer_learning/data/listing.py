"""The files below a folder; each folder is visited once, whatever links lead to it."""

import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.text import printable

LINKED = "links to folders that are listed already"
SPECIAL = "pipes, sockets or devices"
EMPTY = "folders without files"
RESULTS = "folders of runs or evaluations"
RESULT_FILES = ({"config.yaml", "train.log"}, {"evaluation.json", "predictions.csv"})  # that such folders have
# Of macOS, Synology's and QNAP's storages, and Windows: copies, previews and what was deleted
SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information"}


def no_folder(path: Path) -> str:
    """Why a path is not that of a folder that can be read."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return "no such folder"
    except OSError as error:
        return f"this folder cannot be reached ({error.strerror})"
    return "a file, not a folder"


class Listing(NamedTuple):
    """Files relative to a folder, sorted, and what was left out: reason -> paths."""

    files: list[Path]
    left_out: dict[str, Sequence[str]]


def list_files(root: Path) -> Listing:
    """Every file below `root`, without names that begin with a dot, without `SYSTEM_FOLDERS`, and without folders below
    it that have the files of a run or an evaluation.

    A folder is visited once: by its own path if that is below `root`, else by the first link to it. A link that
    leads nowhere is listed as a file. Raises UserError for a folder that cannot be read.
    """
    files, special, repeated, empty, results = list[Path](), list[str](), list[str](), list[str](), list[str]()
    folders, links, visited = [root], list[Path](), set()
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        state, entries = _state_and_entries(folder)
        if (state.st_dev, state.st_ino) in visited:
            repeated.append(printable(str(folder)))
            continue
        visited.add((state.st_dev, state.st_ino))
        if not entries and folder != root:
            empty.append(printable(str(folder)))
        if folder != root and any(marks <= {entry.name for entry in entries} for marks in RESULT_FILES):
            results.append(printable(str(folder)))
            continue
        for entry in entries:
            if os.path.isdir(entry.path):
                if entry.is_symlink():
                    heapq.heappush(links, folder / entry.name)
                else:
                    folders.append(folder / entry.name)
            elif os.path.isfile(entry.path) or not os.path.exists(entry.path):
                files.append((folder / entry.name).relative_to(root))
            else:
                special.append(printable(entry.path))
    left_out = {LINKED: sorted(repeated), SPECIAL: sorted(special), EMPTY: sorted(empty), RESULTS: sorted(results)}
    return Listing(
        sorted(files, key=lambda file: file.as_posix()), {why: found for why, found in left_out.items() if found}
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _state_and_entries(folder: Path) -> tuple[os.stat_result, list[os.DirEntry]]:
    try:
        with os.scandir(folder) as entries:
            return os.stat(folder), [entry for entry in entries if not _is_hidden(entry.name)]
    except OSError as error:
        reason = f"{error.strerror}; every folder must be readable. Correct that, or move it away."
        raise UserError(f"{error.filename}: {reason}") from error
