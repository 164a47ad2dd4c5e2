"""The files that a verb gets and makes: images named on the command line, and output files."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from transfer_learning.data.sources.folder import is_image_name, list_files
from transfer_learning.utilities.errors import UserError


def image_files(paths: Sequence[str]) -> list[str]:
    """Files as they are, of folders all images below them, of glob patterns what they match; in that order.

    Raises UserError if a path does not exist or has no images.
    """
    found: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = [os.path.join(path, file) for file in list_files(Path(path)) if is_image_name(file)]
        else:
            inside = [path] if os.path.exists(path) else sorted(filter(os.path.isfile, glob.glob(path, recursive=True)))
        if not inside:
            reason = "no images below this folder" if os.path.isdir(path) else "no such file or folder"
            raise UserError(f"{path}: {reason}; expected images, folders of images, or a pattern such as '*.jpg'.")
        found += inside
    return found


def check_new(path: str | Path, overwrite: bool) -> Path:
    """The path of an output that can be written: it does not exist, or may be overwritten. Raises UserError."""
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists already. Choose another name, or add --overwrite.")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise UserError(f"{path}: cannot be written, since {above} is not a folder that can be written.")
    return path
