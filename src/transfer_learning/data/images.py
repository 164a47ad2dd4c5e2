"""Labelled images before they are read, and the sources that list them."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from transfer_learning.data.depth import reopened
from transfer_learning.data.digests import UNREADABLE, FileDigests
from transfer_learning.data.formats import open_image
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.text import printable, some


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
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)  # reason -> names of what is not listed here

    def take(self, indices: np.ndarray) -> "Images":
        """The images at (M,) indices, in that order."""
        columns: dict[str, Any] = {key: getattr(self, key) for key in ("names", "digests", "splits", "groups")}
        taken: dict[str, Any] = {key: [value[n] for n in indices] if value else value for key, value in columns.items()}
        return replace(self, labels=self.labels[indices], read=lambda n: self.read(indices[n]), **taken)


@runtime_checkable
class Source(Protocol):
    """Lists labelled images. `ImageDataModule.list_images` calls it once."""

    def list_images(self, file_digests: FileDigests) -> Images:
        """Sources of files compute their digests with `file_digests`. Raises UserError."""


def images_of_files(
    paths: Sequence[Path],
    class_of: Sequence[str],
    classes: Sequence[str] | None,
    file_digests: FileDigests,
    **columns: Any,
) -> Images:
    """Labelled images in N files.

    Args:
        class_of: the name of each file's class.
        classes: the class names in the order of the codes; None is the alphabetical order of those that occur.
        columns: further attributes of `Images`.

    Raises UserError for classes whose names are the same once they are printable.
    """
    names = classes or sorted(set(class_of), key=lambda name: (name.casefold(), name))
    codes = {name: code for code, name in enumerate(names)}
    shown = tuple(map(printable, names))
    if len(set(shown)) < len(shown):
        text = Counter(shown).most_common(1)[0][0]
        alike = some([repr(name) for name, each in zip(names, shown) if each == text])
        raise UserError(f"the classes {alike} would all be called {text} in messages and results. Rename all but one.")
    digests = file_digests(paths)

    def read(index: int) -> Image.Image:
        content = paths[index].read_bytes()
        if digests[index] != hashlib.sha256(content).hexdigest():
            raise UserError(f"{printable(str(paths[index]))}: changed after it was listed. Run it again.")
        if not content:
            raise ValueError("the file is empty")
        return open_image(io.BytesIO(content))

    return Images(
        names=[printable(str(path)) for path in paths],
        labels=np.array([codes[name] for name in class_of], dtype=np.int64),
        class_names=shown,
        digests=digests,
        read=read,
        **columns,
    )


def check_classes(classes: Sequence[str | int] | None) -> list[str] | None:
    """Class names that the user asks for, as texts. Raises ArgumentError (`classes`) unless they are two or more."""
    names = None if classes is None else [str(name) for name in classes]
    if names is not None and (len(names) < 2 or len(set(names)) < len(names)):
        raise ArgumentError("classes", classes, "expected two class names or more, each once.")
    return names


def too_few_classes(images: Images, classes: Sequence[str] | None) -> str | None:
    """In words what was found and expected, if the images are of fewer than two classes, or not of all `classes`."""
    codes = set(images.labels.tolist())
    found = [name for code, name in enumerate(images.class_names) if code in codes]
    if len(found) > 1 and len(found) >= len(classes or ()):
        return None
    expected = " and ".join(classes) if classes else "at least two classes"
    text = f"classes found: {some(found, 20) or 'none'}; expected {expected}."
    left_out = "; ".join(f"{why}: {some(names)}" for why, names in images.left_out.items())
    return f"{text} Left out: {left_out}." if left_out else text


def _is_pixels(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.size > 0 and array.ndim > 1 and array.shape[2:] in ((), (3,))


def unlabelled(images: Iterable[str | Path | Image.Image | np.ndarray]) -> Images:
    """Images to predict: files, opened images, or pixels (H, W, 3) or (H, W) uint8.

    Their label is 0, and there are no class names. A file that cannot be read is found when it is decoded. Raises
    UserError for an item of another kind.
    """
    try:
        items = list(images)  # another container may have indices of its own, as a pandas Series has
    except TypeError as error:
        raise UserError(f"images are {type(images).__name__}; expected a list of files or images.") from error
    for number, item in enumerate(items):
        is_pixels = isinstance(item, np.ndarray) and _is_pixels(item)
        if not isinstance(item, (str, Path, Image.Image)) and not is_pixels:
            found = f"{item.shape} {item.dtype}" if isinstance(item, np.ndarray) else type(item).__name__
            expected = "a file, an image of Pillow's, or an array (H, W, 3) uint8"
            raise UserError(f"image {number} is {found}; expected {expected}.")

    one_at_a_time = Lock()

    def read(index: int) -> Image.Image:
        item = items[index]
        if isinstance(item, np.ndarray):
            return Image.fromarray(item)
        if not isinstance(item, Image.Image):
            if Path(item).is_file() and not Path(item).stat().st_size:
                raise ValueError("the file is empty")
            return open_image(item)
        with one_at_a_time:  # the same image may be listed twice
            # A copy loses what the file says of its values, such as more than 8 bits per channel.
            return reopened(item) if getattr(item, "tile", None) and getattr(item, "fp", None) else item.copy()

    named = [printable(str(item)) if isinstance(item, (str, Path)) else f"image {n}" for n, item in enumerate(items)]
    return Images(named, np.zeros(len(items), np.int64), (), [UNREADABLE] * len(items), read)
