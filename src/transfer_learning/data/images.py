"""Labelled images before they are read, and the sources that list them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from transfer_learning.data.digests import FileDigests


@dataclass(frozen=True)
class Images:
    """N labelled images that have not been read yet.

    Attributes:
        names: the name of each image in messages, N strings.
        labels: class codes, (N,) int64 in [0, C).
        class_names: C names; a code is a position in it.
        digests: SHA-256 (hex) of each image's bytes, N strings; a text that begins with `UNREADABLE` for a file without one.
        read: index -> the image as PIL opens it; it may raise anything.
        splits: the given split of each image, "train", "val", "test" or None; None if the source gives no splits.
        groups: the group of each image (a patient, a scene); None if the source knows no groups.
    """

    names: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    digests: Sequence[str]
    read: Callable[[int], Image.Image]
    splits: Sequence[str | None] | None = None
    groups: Sequence[str] | None = None

    def take(self, indices: np.ndarray) -> "Images":
        """The images at (M,) indices, in that order."""
        columns = {key: getattr(self, key) for key in ("names", "digests", "splits", "groups")}
        taken = {key: values and [values[index] for index in indices] for key, values in columns.items()}
        return replace(self, labels=self.labels[indices], read=lambda n: self.read(indices[n]), **taken)


@runtime_checkable
class Source(Protocol):
    """Lists labelled images. The data module calls it once, in `setup`."""

    def list_images(self, file_digests: FileDigests) -> Images:
        """Sources of files compute their digests with `file_digests`. Raises UserError."""
        ...
