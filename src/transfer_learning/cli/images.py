"""The images that are named on the command line."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from transfer_learning.data.formats import is_image_name
from transfer_learning.data.listing import list_files
from transfer_learning.utilities.errors import UserError


def image_files(paths: Sequence[str]) -> list[str]:
    """Files as they are, of folders all images below them, of glob patterns what they match; in that order, each once.

    Raises UserError if a path does not exist or has no images.
    """
    found = dict[str, str]()
    for path in paths:
        matches = [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))
        folders = {Path(match) for match in matches if os.path.isdir(match)}
        outer = [match for match in matches if folders.isdisjoint(Path(match).parents)]  # `**` matches at each depth
        inside = [file for match in outer for file in _images(match)]
        if not inside:
            reason = "no images there" if matches else "no such file or folder"
            raise UserError(f"{path}: {reason}; expected images, folders of images, or a pattern such as '*.jpg'.")
        for file in inside:
            found.setdefault(os.path.abspath(file), file)
    return list(found.values())


def _images(path: str) -> list[str]:
    """A file as it is; of a folder, the images below it."""
    if not os.path.isdir(path):
        if os.path.exists(path) and not os.path.isfile(path):  # a link that leads nowhere is not readable later
            raise UserError(f"{path}: a pipe, a socket or a device; expected an image.")
        return [path]
    return [os.path.join(path, file) for file in list_files(Path(path)).files if is_image_name(file)]
