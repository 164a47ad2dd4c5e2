"""Images in a folder, whose folders or file names tell their classes."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.alike import log_alike
from transfer_learning.data.digests import FileDigests
from transfer_learning.data.formats import NOT_AN_IMAGE, is_image_name, missing_plugin
from transfer_learning.data.images import Images, check_classes, images_of_files, too_few_classes
from transfer_learning.data.layout import labels_of
from transfer_learning.data.listing import list_files, no_folder
from transfer_learning.data.summary import log_given_splits, log_left_out
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.text import printable, some
from transfer_learning.utilities.validation import PathArgument, validated

NO_CLASS = "neither folder nor file name tells a class"
LAYOUTS = "expected a folder of class folders (cat/1.jpg) or of files named like cat.1.jpg"


@validated
class Folder:
    """The images below a folder, in class folders (`PetImages/Cat/1.jpg`) or in Kaggle's flat layout (`cat.1.jpg`).

    Folders with the name of a split (`train`, `validation`, `test1`) around them tell the images' splits. `train/cat`
    and `validation/Cat` are one class, `a` and `A` beside each other are two: see `layout.labels_of`.

    Args:
        root: the folder.
        classes: the classes to take, in this order (a folder may be their plural, or in another case of letters); None
            takes all, in alphabetical order.
        group_pattern: a regular expression for the beginning of a file's name, such as `(P[0-9]+)_`. Files with
            the same text in its first group, or in what it matches, are a group of images. A file that it does not
            match is a group of its own.
    """

    def __init__(
        self, root: PathArgument, classes: Sequence[str | int] | None = None, group_pattern: str | None = None
    ):
        self.root, self.classes, self.group_pattern = Path(root).expanduser(), check_classes(classes), group_pattern
        try:
            re.compile(group_pattern or "")
        except re.error as error:
            raise ArgumentError("group_pattern", group_pattern, f"expected a regular expression: {error}.") from error

    def list_images(self, file_digests: FileDigests) -> Images:
        """Raises UserError: no such folder, one that cannot be listed, no images, or fewer than two classes."""
        if not os.path.isdir(self.root):
            raise ArgumentError("root", str(self.root), f"{no_folder(self.root)}; {LAYOUTS}.")
        try:
            images = _images_below(self.root, self.classes, file_digests)
        except UserError as error:
            raise ArgumentError("root", str(self.root), str(error)) from error
        if reason := too_few_classes(images, self.classes):
            argument, value = ("classes", self.classes) if self.classes else ("root", str(self.root))
            hint = "A class is a folder (cat/1.jpg) or in names (cat.1.jpg)."
            raise ArgumentError(argument, value, f"{reason} {hint}{_class_itself(images)}")
        return replace(images, groups=self._groups(images.names) if self.group_pattern else None)

    def _groups(self, names: Sequence[str]) -> list[str]:
        """The group of each file; its own name if the pattern tells none."""
        pattern, groups = re.compile(self.group_pattern or ""), []
        part = 1 if pattern.groups else 0  # of a match: its first group, or the whole
        for name in names:
            match = pattern.match(Path(name).name)
            group = match[part] if match else None
            groups.append(group or name)
        alone = [name for name, group in zip(names, groups) if group == name]
        if len(alone) == len(names):
            expected = f"gives no group for any file; one is {Path(names[0]).name}."
            raise ArgumentError("group_pattern", self.group_pattern, expected)
        if alone:
            rank_zero_info(f"{len(alone):,} images that the group's pattern does not match, each alone: {some(alone)}")
        found = set(groups) - set(alone)
        log_alike(found, found, "group")
        return groups


def labelled_images(root: str | Path, class_names: Sequence[str]) -> Images:
    """The images below a folder whose class is one of `class_names`, in either layout; it need not have all classes.

    Logs classes that are missing, and what is left out. Raises UserError: no such folder, or no image of these classes.
    """
    folder = Path(root).expanduser()
    if not os.path.isdir(folder):
        raise UserError(f"{root}: {no_folder(folder)}; {LAYOUTS}.")
    images = _images_below(folder, class_names, FileDigests())
    log_left_out(images.left_out)
    log_given_splits(images.splits or (), "all images are taken")
    if not len(images.labels):
        raise UserError(f"{root}: no images of {some(class_names, 20)}; {LAYOUTS}.{_class_itself(images)}")
    codes = set(images.labels.tolist())
    missing = [name for code, name in enumerate(class_names) if code not in codes]
    if missing:
        rank_zero_info(f"{root}: no images of {some(missing)}")
    return images


def _class_itself(images: Images) -> str:
    return " If this folder is a class, name the folder above it." if NO_CLASS in images.left_out else ""


def _images_below(root: Path, classes: Sequence[str] | None, file_digests: FileDigests) -> Images:
    """The images of the classes, or of all classes that are found; it may be none. Raises UserError."""
    listed, found = list_files(root)
    left_out = {reason: list(names) for reason, names in found.items()}
    reasons = {file: missing_plugin(file) if is_image_name(file) else NOT_AN_IMAGE for file in listed}
    files = [file for file in listed if not reasons[file]]
    labels = dict(zip(files, labels_of(files, classes)))
    others = sorted({printable(each.class_name) for each in labels.values() if each.class_name and not each.is_wanted})
    for file, label in labels.items():
        if not label.is_wanted:
            reasons[file] = f"of other classes: {some(others)}" if label.class_name else NO_CLASS
    for file, reason in reasons.items():
        if reason:
            left_out.setdefault(reason, []).append(printable(str(root / file)))
    kept = [file for file in listed if not reasons[file]]
    return images_of_files(
        [root / file for file in kept],
        [str(labels[file].class_name) for file in kept],
        classes,
        file_digests,
        splits=[labels[file].split for file in kept],
        left_out=left_out,
    )
