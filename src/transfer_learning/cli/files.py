"""The files and folders that a verb writes."""

import os
from collections.abc import Sequence
from pathlib import Path

from transfer_learning.utilities.errors import UserError

OWN_FILES = {  # a file that a kind of folder has -> what wrote it, and its files whose names a verb would accept
    "config.yaml": ("run", ("split.csv", "epochs.csv", "predictions.csv", "metrics.csv")),
    "evaluation.json": ("evaluation", ("predictions.csv",)),
    "audit.html": ("audit", ("audit.csv", "audit.html")),
    "leaderboard.md": ("sweep", ("leaderboard.csv",)),
}


def check_suffix(path: str | Path, suffixes: Sequence[str], note: str = "") -> None:
    """Raises UserError if the name of --out does not end in one of the suffixes; `note` ends the message."""
    if Path(path).suffix not in suffixes:
        raise UserError(f"--out {path}: expected a name that ends in {' or '.join(suffixes)}{note}.")


def check_not_input(path: str | Path, inputs: Sequence[str], option: str = "--out") -> None:
    """Raises UserError if the folder for results, which `option` names, is one of the folders of images."""
    if os.path.isdir(path) and os.path.realpath(path) in map(os.path.realpath, inputs):
        raise UserError(f"{option} {path}: the folder of the images; expected a folder of its own.")


def check_new(
    path: str | Path, overwrite: bool, is_folder: bool = False, option: str = "--out", what: str = ""
) -> Path:
    """The path of an output that `option` names, a file or a folder, if it does not exist or may be overwritten.

    `what` describes an existing output, for the message. A symbolic link exists, wherever it leads; what it leads to is
    written.

    Raises UserError if it exists, is of the other kind, the folder of a run or one of `OWN_FILES`, or is not writable.
    Missing folders above a file are a mistake; those above a folder are made with it.
    """
    path = Path(path)
    real = Path(os.path.realpath(path))
    for mark, (owner, names) in {} if is_folder else OWN_FILES.items():
        if real.name in names and real.with_name(mark).is_file():
            reason = f"{real.name} is a file of the {owner} in this folder"
            raise UserError(f"{path}: {reason}. Choose another name with {option}.")
    if is_folder and (path / "config.yaml").is_file():
        raise UserError(f"{path}: the folder of a run, which has files of its own. Choose another name with {option}.")
    is_alike = not path.exists() or (path.is_dir() if is_folder else path.is_file())
    if os.path.lexists(path) and (not overwrite or not is_alike):
        kind, ways = (what, ", or add --overwrite") if is_alike else (", as another kind of file", "")
        raise UserError(f"{path}: exists already{kind}. Choose another name with {option}{ways}.")
    parents = (real, *real.parents) if is_folder else real.parents
    above = next(folder for folder in parents if folder.exists() or not is_folder)
    if not above.is_dir():
        raise UserError(f"{path}: there is no folder {above if path.is_symlink() else path.parent}.")
    if not os.access(above, os.W_OK):
        raise UserError(f"{path}: the folder {above} is not writable.")
    return path
