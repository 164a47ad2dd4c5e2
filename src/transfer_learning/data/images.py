"""Labelled images before they are read, and the sources that list them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from transfer_learning.data.digests import UNREADABLE, FileDigests
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.files import printable


@dataclass(frozen=True)
class Images:
    """N labelled images that have not been read yet."""

    names: Sequence[str]  # in messages
    labels: np.ndarray  # class codes, (N,) int64 in [0, C)
    class_names: tuple[str, ...]  # C names; a code is a position in it
    digests: Sequence[str]  # SHA-256 (hex) of each image's bytes, or a text that begins with UNREADABLE
    read: Callable[[int], Image.Image]  # index -> the image as PIL opens it; may raise anything
    splits: Sequence[str | None] | None = None  # the given split of each image: "train", "val", "test" or None
    groups: Sequence[str] | None = None  # the group of each image (a patient, a scene), if the source knows groups

    def take(self, indices: np.ndarray) -> "Images":
        """The images at (M,) indices, in that order."""
        columns: dict[str, Any] = {key: getattr(self, key) for key in ("names", "digests", "splits", "groups")}
        taken: dict[str, Any] = {key: value and [value[n] for n in indices] for key, value in columns.items()}
        return replace(self, labels=self.labels[indices], read=lambda n: self.read(indices[n]), **taken)


@runtime_checkable
class Source(Protocol):
    """Lists labelled images. The data module calls it once, in `setup`."""

    def list_images(self, file_digests: FileDigests) -> Images:
        """Sources of files compute their digests with `file_digests`. Raises UserError."""


def unlabelled(items: Sequence[str | Path | Image.Image | np.ndarray]) -> Images:
    """Images to predict: files, opened images, or pixels (H, W, 3) or (H, W) uint8.

    Their label is 0, and there are no class names. A file that cannot be read is found when it is decoded. Raises
    UserError for an item of another kind.
    """
    for number, item in enumerate(items):
        is_pixels = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.shape[2:] in ((), (3,))
        if not isinstance(item, (str, Path, Image.Image)) and not is_pixels:
            found = f"{item.shape} {item.dtype}" if isinstance(item, np.ndarray) else type(item).__name__
            expected = "a file, an image of Pillow's, or an array (H, W, 3) uint8"
            raise UserError(f"image {number} is {found}; expected {expected}.")

    def read(index: int) -> Image.Image:
        item = items[index]
        if isinstance(item, np.ndarray):
            return Image.fromarray(item)
        return item.copy() if isinstance(item, Image.Image) else Image.open(item)

    named = [printable(str(item)) if isinstance(item, (str, Path)) else f"image {n}" for n, item in enumerate(items)]
    return Images(named, np.zeros(len(items), np.int64), (), [UNREADABLE] * len(items), read)
