"""Labelled images before they are read, and the sources that list them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from transfer_learning.data.digests import FileDigests


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
