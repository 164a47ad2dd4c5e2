"""The files and folders that a verb writes."""

import os
from pathlib import Path

from transfer_learning.utilities.errors import UserError


def check_new(path: str | Path, overwrite: bool, is_folder: bool = False, option: str = "--out") -> Path:
    """The path of an output that `option` names, a file or a folder, if it does not exist or may be overwritten.

    Raises UserError if it exists, is of the other kind, or cannot be written. Missing folders above a file are a
    mistake; those above a folder are made with it.
    """
    path = Path(path).expanduser()
    if path.exists() and (not overwrite or path.is_dir() != is_folder):
        kind, ways = ("", ", or add --overwrite") if path.is_dir() == is_folder else (", as another kind of file", "")
        raise UserError(f"{path}: exists already{kind}. Choose another name with {option}{ways}.")
    above = next(folder for folder in path.absolute().parents if folder.exists() or not is_folder)
    if not above.is_dir():
        raise UserError(f"{path}: there is no folder {path.parent}.")
    if not os.access(above, os.W_OK):
        raise UserError(f"{path}: the folder {above} cannot be written.")
    return path
