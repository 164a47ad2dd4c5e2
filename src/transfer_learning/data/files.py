"""Find images in a folder and tell their classes."""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.errors import UserError

NUMBERED = re.compile(r"(.+)\.\d+\.\w+")  # Kaggle's flat layout: cat.123.jpg
UNREADABLE = "unreadable"
PART = re.compile(
    r"(train|val|valid|test)(ing|idation)?[ _-]?(data|set|images)?\d*", re.IGNORECASE
)  # train, test1, validation_data


@dataclass(frozen=True)
class Images:
    """N labelled images, not read yet.

    Attributes:
        names: what a message calls each image, (N,) strings.
        labels: class codes, (N,) int64 in [0, C).
        class_names: C names; a code is a position in it.
        digests: SHA-256 (hex) of each image's bytes, (N,) strings: equal digests are the same image. One that begins with `UNREADABLE`
            says why there is none.
        read: index -> the image, as PIL gives it. It may raise anything: a broken file is the caller's to report.
    """

    names: Sequence[str]
    labels: np.ndarray
    class_names: tuple[str, ...]
    digests: Sequence[str]
    read: Callable[[int], Image.Image]


def find_images(root: str | Path, class_names: Sequence[str] | None = None) -> Images:
    """Finds the images below `root`, in class folders (`PetImages/Cat/1.jpg`) or in Kaggle's flat layout (`train/cat.1.jpg`).

    A class folder is the folder that an image lies in; `train/cat/…` and `validation/cat/…` are one class, and so are `Cat` and `cat`.
    Folders named for parts (`train`, `test1`) are no classes. Images whose folder and name tell no class are left out and counted.

    Args:
        root: a folder.
        class_names: the classes to look for (a folder may be their plural); None takes every class that the folder shows.

    Raises:
        UserError: no such folder, one in it that cannot be listed, no images, or fewer than two classes.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(
            f"data.root={root}: no such folder. Expected a folder of class folders or of files named like cat.1.jpg."
        )
    files = _files(root)
    classes = [_known_class(file, class_names) for file in files] if class_names else _classes_found(files)
    unlabelled = sum(1 for file, name in zip(files, classes) if name is None and is_image_name(file))
    if unlabelled:
        rank_zero_info(f"{root}: {unlabelled} images left out, since neither folder nor file name tells their class")

    labelled = [(file, name) for file, name in zip(files, classes) if name is not None]
    names = tuple(class_names or sorted({name for _, name in labelled}, key=str.casefold))
    missing = set(names) - {name for _, name in labelled}
    if len(names) < 2 or missing:
        found = ", ".join(sorted({name for _, name in labelled})) or "none"
        expected = " and ".join(names) if class_names else "at least two classes"
        raise UserError(
            f"data.root={root}: classes found: {found}; expected {expected}, as folders (cat/1.jpg) or file names (cat.1.jpg)."
        )
    paths, codes = [root / file for file, _ in labelled], {name: code for code, name in enumerate(names)}
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_sha256, paths))
    return Images(
        names=[_printable(str(path)) for path in paths],
        labels=np.array([codes[name] for _, name in labelled]),
        class_names=tuple(map(_printable, names)),
        digests=digests,
        read=lambda index: Image.open(paths[index]),
    )


def is_image_name(path: Path) -> bool:
    """Whether a file calls itself an image, of whatever format: whether it is one shows when it is read."""
    return path.suffix.lower() in Image.registered_extensions() or (guess_type(path.name)[0] or "").startswith("image/")


def _files(root: Path) -> list[Path]:
    """Every file below `root`, relative to it, in an order that no file system decides. Hidden files and macOS's leftovers don't count."""
    found = []
    for folder, subfolders, names in os.walk(root, onerror=_refuse, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        found += [Path(folder, name).relative_to(root) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.as_posix())


def _refuse(error: OSError) -> None:
    raise UserError(
        f"{error.filename}: {error.strerror}; expected a folder that can be listed. Mend that, or move it out of data.root."
    )


def _known_class(file: Path, class_names: Sequence[str]) -> str | None:
    """The nearest folder that names a class decides, then the file's own name."""
    known = {form: name for name in class_names for form in (name.casefold(), name.casefold() + "s")}
    numbered = NUMBERED.fullmatch(file.name)
    candidates = [*reversed(file.parent.parts), *([numbered[1]] if numbered else [])]
    return next((known[name.casefold()] for name in candidates if name.casefold() in known), None)


def _classes_found(files: list[Path]) -> list[str | None]:
    """Folders that hold images are classes, unless they are named for parts; where all are (or it is `root` itself), file names decide."""
    holders = {file.parent for file in files if is_image_name(file)}
    folders = {folder for folder in holders if folder.name and not PART.fullmatch(folder.name)}
    if folders:
        classes = [file.parent.name if file.parent in folders else None for file in files]
    else:
        classes = [match[1] if (match := NUMBERED.fullmatch(file.name)) else None for file in files]
    spelling = {name.casefold(): name for name in reversed(classes) if name}  # the first spelling met stands
    return [name and spelling[name.casefold()] for name in classes]


def _printable(name: str) -> str:
    """Not every name that a file system takes is Unicode."""
    return name.encode(errors="backslashreplace").decode()


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # it stays in the list: reading its pixels fails too, and that names it in the log
        return f"{UNREADABLE} {path} {error.errno}"
