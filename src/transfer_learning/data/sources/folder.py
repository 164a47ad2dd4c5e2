"""Images in a folder, whose folders or file names tell their classes."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.digests import FileDigests
from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.files import printable
from transfer_learning.utilities.validation import PathArgument, validated

NUMBERED = re.compile(r"(.+)\.\d+\.\w+")  # Kaggle's flat layout: cat.123.jpg
SPLIT_NAME = re.compile(r"(train|val|valid|test)(ing|idation)?[ _-]?(data|set|images)?\d*", re.IGNORECASE)
LAYOUTS = "expected a folder of class folders (cat/1.jpg) or of files named like cat.1.jpg"


@validated
class Folder:
    """The images below a folder, in class folders (`PetImages/Cat/1.jpg`) or in Kaggle's flat layout (`cat.1.jpg`).

    The class of an image is the folder that it is in; `train/cat` and `validation/cat` are one class, and so are `Cat`
    and `cat`. Folders with the name of a split (`train`, `test1`) are no classes. Images whose folder and name tell no
    class are left out and counted.

    Args:
        root: the folder.
        class_names: the classes to look for (a folder may be their plural); None takes every class that is found.
    """

    def __init__(self, root: PathArgument, class_names: Sequence[str] | None = None):
        self.root, self.class_names = Path(root).expanduser(), class_names

    def list_images(self, file_digests: FileDigests) -> Images:
        """Raises UserError: no such folder, one that cannot be listed, no images, or fewer than two classes."""
        if not self.root.is_dir():
            raise ArgumentError("root", str(self.root), f"no such folder; {LAYOUTS}.")
        files = list_files(self.root)
        known = self.class_names
        classes = [_known_class(file, known) for file in files] if known else _classes_found(files)
        unlabelled = sum(name is None and is_image_name(file) for file, name in zip(files, classes))
        if unlabelled:
            rank_zero_info(f"{self.root}: {unlabelled} images left out: neither folder nor file name tells their class")
        labelled = [(self.root / file, name) for file, name in zip(files, classes) if name is not None]
        found = sorted({name for _, name in labelled}, key=str.casefold)
        class_names = tuple(self.class_names or found)
        if len(class_names) < 2 or set(class_names) - set(found):
            expected = " and ".join(self.class_names) if self.class_names else "at least two classes"
            reason = f"classes found: {', '.join(found) or 'none'}; expected {expected}"
            raise ArgumentError("root", str(self.root), f"{reason}, as folders (cat/1.jpg) or file names (cat.1.jpg).")
        return _images(labelled, class_names, file_digests)


def labelled_images(root: str | Path, class_names: Sequence[str]) -> Images:
    """The images below a folder whose class is one of `class_names`, in either layout; it need not have all classes.

    Logs classes that are missing, and how many images are left out because their class is another one or unknown.
    Raises UserError: no such folder, or no image of these classes.
    """
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder; {LAYOUTS}.")
    files = [file for file in list_files(Path(root)) if is_image_name(file)]
    spellings = _spellings(class_names)
    found = dict(zip(files, _classes_found(files)))
    known: dict[Path, str | None] = {}
    for file in files:
        candidates = [*reversed(file.parent.parts), *filter(None, [found[file]])]
        known[file] = next((spellings[form] for form in map(_form, candidates) if form in spellings), None)
    others = Counter(found[file] for file in files if known[file] is None)
    for name, count in others.items():
        reason = (
            f"their class {printable(name)} is unknown" if name else "neither folder nor file name tells their class"
        )
        rank_zero_info(f"{root}: {count} images left out: {reason}; known are {', '.join(class_names)}")
    labelled = [(Path(root, file), name) for file, name in known.items() if name is not None]
    if not labelled:
        raise UserError(f"{root}: no images of {' or '.join(class_names)}; {LAYOUTS}.")
    for name in class_names:
        if name not in known.values():
            rank_zero_info(f"{root}: no images of {name}")
    return _images(labelled, class_names, FileDigests())


def _images(labelled: Sequence[tuple[Path, str]], class_names: Sequence[str], file_digests: FileDigests) -> Images:
    paths, codes = [path for path, _ in labelled], {name: code for code, name in enumerate(class_names)}
    return Images(
        names=[printable(str(path)) for path in paths],
        labels=np.array([codes[name] for _, name in labelled], dtype=np.int64),
        class_names=tuple(map(printable, class_names)),
        digests=file_digests(paths),
        read=lambda index: Image.open(paths[index]),
    )


def is_image_name(path: Path) -> bool:
    """Whether the file's name is that of an image in any format; reading it shows whether it is one."""
    return path.suffix.lower() in Image.registered_extensions() or (guess_type(path.name)[0] or "").startswith("image/")


def list_files(root: Path) -> list[Path]:
    """Every file below `root`, relative to it, sorted, without hidden files and those that macOS leaves behind."""

    def refuse(error: OSError) -> None:
        reason = f"{error.strerror}; every folder must be readable. Correct that, or move it away."
        raise UserError(f"{error.filename}: {reason}")

    found, visited = [], set()
    for folder, subfolders, names in os.walk(root, onerror=refuse, followlinks=True):
        state = os.stat(folder)
        if (state.st_dev, state.st_ino) in visited:
            rank_zero_info(f"{folder}: a link to a folder that is listed already")
            subfolders.clear()
            continue
        visited.add((state.st_dev, state.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith((".", "__MACOSX"))]
        found += [Path(folder, name).relative_to(root) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: path.as_posix())


def _known_class(file: Path, class_names: Sequence[str]) -> str | None:
    """The class that the nearest folder names, else the class that the file's own name tells."""
    spellings, numbered = _spellings(class_names), NUMBERED.fullmatch(file.name)
    candidates = [*reversed(file.parent.parts), *([numbered[1]] if numbered else [])]
    return next((spellings[form] for form in map(_form, candidates) if form in spellings), None)


def _spellings(class_names: Sequence[str]) -> dict[str, str]:
    """Forms of names that stand for each class: its name, and its plural."""
    return {form: name for name in class_names for form in (_form(name), _form(name) + "s")}


def _form(name: str) -> str:
    return printable(name).casefold()


def _classes_found(files: list[Path]) -> list[str | None]:
    """The class of each file: its folder's name, or its own if every folder with images is named like a split."""
    holders = {file.parent for file in files if is_image_name(file)}
    folders = {folder for folder in holders if folder.name and not SPLIT_NAME.fullmatch(folder.name)}
    if folders:
        classes = [file.parent.name if file.parent in folders else None for file in files]
    else:
        classes = [match[1] if (match := NUMBERED.fullmatch(file.name)) else None for file in files]
    spelling = {name.casefold(): name for name in reversed(classes) if name}  # the first spelling is kept
    return [name and spelling[name.casefold()] for name in classes]
