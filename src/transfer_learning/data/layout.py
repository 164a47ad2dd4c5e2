"""What the folders and names of image files tell: the class of each image, and its split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.splits import split_named
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.text import printable, some

NUMBERED = re.compile(r"(.+)\.\d+\.\w+")  # Kaggle's flat layout: cat.123.jpg
Place = tuple[Path, str]  # a folder, and a name in it that may be that of a class


class Label(NamedTuple):
    class_name: str | None  # None if neither folder nor file name tells it
    split: str | None  # "train", "val" or "test" if a folder above the image is called so
    is_wanted: bool = True  # whether the class is one that was asked for


def labels_of(files: Sequence[Path], wanted: Sequence[str] | None = None) -> list[Label]:
    """The class and the split of each image file, from its path relative to the root.

    The class is the folder that the file is in (`cat/1.jpg`, `train/cat/1.jpg`). If no such folder is a class, the
    file's name begins with it (`train/cat.1.jpg`), or else it is the folder around the splits (`cat/train/1.jpg`).

    Args:
        wanted: the classes to look for, in folders at any depth, in any case of letters and as plurals; None takes
            every class that is found.

    Raises:
        UserError: folders that may be splits as well as classes.
    """
    splits = _split_folders(files, wanted)
    above = {holder: [each for each in _chain(holder) if each not in splits] for holder in {f.parent for f in files}}
    in_folders = [[(each.parent, each.name) for each in above[file.parent]] for file in files]
    in_names = [[(file.parent, found[1])] if (found := NUMBERED.fullmatch(file.name)) else [] for file in files]
    places = in_folders
    if wanted:
        if not _matches(_names(in_folders), wanted) and _matches(_names(in_names), wanted):
            places = in_names
    elif any(file.parent in above[file.parent] for file in files):
        places = [found[:1] if file.parent not in splits else [] for file, found in zip(files, in_folders)]
    elif len(_names(in_names)) > 1 or len(_names(in_folders)) < 2:
        places = in_names
    spelling = spellings(place for found in places for place in found)
    matches = _matches(spelling.values(), wanted) if wanted else {name: name for name in spelling.values()}
    labels = []
    for file, of_file in zip(files, places):
        names = [spelling[place] for place in of_file]
        name = next((matches[each] for each in names if each in matches), None)
        split = next((splits[each] for each in _chain(file.parent) if each in splits), None)
        labels.append(Label(name or (names[0] if names else None), split, name is not None))
    return labels


def _chain(folder: Path) -> list[Path]:
    """A folder and those above it, without the root."""
    return [each for each in (folder, *folder.parents) if each.name]


def _names(places: Iterable[Iterable[Place]]) -> set[str]:
    return {name for found in places for _, name in found}


def _split_folders(files: Sequence[Path], wanted: Sequence[str] | None) -> dict[Path, str]:
    """The folders that are called like a split, unless they are classes -> the split.

    With images directly in it, such a folder is a class where the folders beside it are classes.
    """
    holders: dict[Path, set[str]] = {}  # folders with images directly in them -> classes that their files' names tell
    for file in files:
        found = NUMBERED.fullmatch(file.name)
        holders.setdefault(file.parent, set()).update([found[1]] if found else [])
    around = {each for holder in holders for each in _chain(holder.parent)}
    splits = {each: split for each in {*around, *holders} if (split := split_named(each.name))}
    may_be_class = [each for each in splits if each in holders and each not in around and len(holders[each]) < 2]
    if not wanted:
        may_be_class = [each for each in may_be_class if each.name.isalpha()]  # not test1 or train_set
    for folder in sorted(may_be_class):
        beside = [each for each in holders if each.parent == folder.parent and each != folder]
        classes = sorted(each.name for each in beside if not split_named(each.name))
        others = [each.name for each in may_be_class if each.parent == folder.parent and each != folder]
        if wanted:
            is_class = bool(classes) or bool(_matches([folder.name], wanted))
        elif classes and others:
            names = some(sorted([folder.name, *others]))
            example = ",".join([*classes[:3], folder.name])
            ways = f"If one of them is a class, list all classes, such as classes=[{example}]; if not, move them away."
            raise UserError(f"the folders {names} beside {some(classes)} may be splits or classes. {ways}")
        else:
            is_class = bool(classes)
        if is_class:
            del splits[folder]
        if is_class and not wanted:
            rank_zero_info(f"{folder}: taken as a class, not as a split, as are {some(classes)} beside it")
    return splits


def spellings(places: Iterable[Place]) -> dict[Place, str]:
    """For each place the name of its class. Names that differ in case only are different classes if one folder has both
    of them; else they are one, and the first spelling is kept.
    """
    alike: dict[str, dict[Place, None]] = {}
    for place in places:
        alike.setdefault(printable(place[1]).casefold(), {})[place] = None
    spelling: dict[Place, str] = {}
    joined, apart = list[str](), list[str]()
    for group in alike.values():
        names = list(dict.fromkeys(name for _, name in group))
        differ = len({folder for folder, _ in group}) < len(group)
        spelling |= {place: place[1] if differ else names[0] for place in group}
        if len(names) > 1:
            (apart if differ else joined).append(" and ".join(map(printable, names)))
    for pairs, what in ((joined, "one class"), (apart, "different classes")):
        if pairs:
            rank_zero_info(f"names that differ in case only are {what} here: {some(pairs)}")
    return spelling


def _matches(names: Iterable[str], wanted: Sequence[str]) -> Mapping[str, str]:
    """For each name that stands for a wanted class that class: the same name, or another case of letters or its plural.

    Where names differ in case only, the one that is spelled like the wanted class is taken.
    """
    names = set(names)
    forms: dict[str, str] = {}
    for suffix in ("s", ""):
        forms |= {printable(each).casefold() + suffix: each for each in wanted}
    exact = {printable(each).casefold() for each in wanted if each in names}
    found = {}
    for name in names:
        form = printable(name).casefold()
        if name in wanted or (form in forms and form not in exact):
            found[name] = name if name in wanted else forms[form]
    return found
