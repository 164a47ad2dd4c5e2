"""What the folders and names of image files tell: the class of each image, and its split."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.alike import log_alike, normalized
from transfer_learning.data.splits import split_named
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.text import printable, some

NUMBERED = re.compile(r"(.+)\.\d+\.\w+")  # Kaggle's flat layout: cat.123.jpg
PREFIXED = re.compile(r"(.+[ _.-])(\w+)")
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
    in_folders = [[(each.parent, each.name) for each in _chain(file.parent) if each not in splits] for file in files]
    in_names = [[(file.parent, found[1])] if (found := NUMBERED.fullmatch(file.name)) else [] for file in files]
    is_in_class_folder = [bool(file.parent.name) and file.parent not in splits for file in files]
    places = in_folders
    if wanted:
        if not _matches(_names(in_folders), wanted) and _matches(_names(in_names), wanted):
            places = in_names
    elif any(is_in_class_folder):
        around = {each for file, inside in zip(files, is_in_class_folder) if inside for each in file.parent.parents}
        places = [  # a folder around splits is a class, too, unless it is around classes
            [place for place in found[:1] if inside or place[0] / place[1] not in around]
            for found, inside in zip(in_folders, is_in_class_folder)
        ]
        _log_folders_around_classes(places, splits)
    elif len(_names(in_names)) > 1 or len(_names(in_folders)) < 2:
        places = in_names
    spelling = _spellings((place for found in places for place in found), splits, join=bool(wanted))
    matches = _matches(spelling.values(), wanted) if wanted else {name: name for name in spelling.values()}
    labels = []
    for file, of_file in zip(files, places):
        names = [spelling[place] for place in of_file]
        name = next((matches[each] for each in names if each in matches), None)
        split = next((splits[each] for each in _chain(file.parent) if each in splits), None)
        labels.append(Label(name or (names[0] if names else None), split, name is not None))
    log_alike({place[1] for place, name in spelling.items() if name in matches}, set(matches))
    return labels


def _log_folders_around_classes(places: Iterable[Iterable[Place]], splits: Collection[Path]) -> None:
    """Logs that class folders are in several folders other than splits, which may be the classes that are meant."""
    around = {folder for found in places for folder, _ in found}
    names = {"/".join(each.name for each in reversed(_chain(folder)) if each not in splits) for folder in around}
    if len(names) > 1:
        shown = some(sorted(printable(name) or "the root" for name in names))
        way = "If those are the classes, list them, such as classes=[a,b]."
        rank_zero_info(f"the class of an image is the folder that it is in; class folders are in {shown}. {way}")


def _chain(folder: Path) -> list[Path]:
    """A folder and those above it, without the root."""
    return [each for each in (folder, *folder.parents) if each.name]


def _names(places: Iterable[Iterable[Place]]) -> set[str]:
    return {name for found in places for _, name in found}


def _split_folders(files: Sequence[Path], wanted: Sequence[str] | None) -> dict[Path, str]:
    """The folders that are called like a split, unless they are classes -> the split.

    Such a folder is a class if it is the only one among class folders. Raises UserError if that is not clear.
    """
    names_in: dict[Path, set[str]] = {}  # folders with images directly in them -> classes that their files' names tell
    for file in files:
        found = NUMBERED.fullmatch(file.name)
        names_in.setdefault(file.parent, set()).update([found[1]] if found else [])
    around = {each for folder in names_in for each in _chain(folder.parent)}
    splits = _named_like_splits({*around, *names_in})
    classes = {}
    for folder in sorted(splits):
        siblings = [each for each in {*around, *names_in} if each.name and each.parent == folder.parent]
        beside = sorted(each.name for each in siblings if each in names_in and each not in splits)
        rival_folders = sorted(each for each in siblings if each in splits and each != folder)
        rivals = [each.name for each in rival_folders]
        inside = {each.name for each in (*around, *names_in) if each.parent == folder}
        if wanted:
            may_be_class = not inside or (bool(beside) and not rivals)
            if may_be_class and (_matches([folder.name], wanted) or (beside and not inside)):
                classes[folder] = beside
        elif beside and folder.name.isalpha() and len(names_in.get(folder, ())) < 2 and not inside & set(beside):
            if rivals or inside:
                in_splits = {each.name for each in (*around, *names_in) if each.parent in (folder, *rival_folders)}
                every = sorted(in_splits if rivals and inside else [folder.name, *rivals, *beside])
                ways = f"List the classes, such as classes=[{','.join(every)}], or move what is none to another folder."
                called = " and ".join([folder.name, *rivals])
                raise UserError(f"{called} beside {some(beside)} may be a split or a class. {ways}")
            classes[folder] = beside
            rank_zero_info(f"{folder}: taken as a class, not as a split, since {some(beside)} beside it is one")
    return {folder: split for folder, split in splits.items() if folder not in classes}


def _named_like_splits(folders: Collection[Path]) -> dict[Path, str]:
    """The folders that are called like a split, or like one after a word or number: `seg_train` and `seg_test`."""
    splits = {each: split for each in folders if (split := split_named(each.name))}
    alike: dict[tuple[Path, str], dict[Path, str]] = {}
    for folder in folders:
        found = PREFIXED.fullmatch(folder.name)
        if folder not in splits and found and (split := split_named(found[2])):
            alike.setdefault((folder.parent, found[1].strip("0123456789")), {})[folder] = split
    for group in alike.values():
        if "train" in group.values() and len(set(group.values())) > 1:
            splits |= group
    return splits


def _spellings(places: Iterable[Place], splits: Collection[Path] = (), join: bool = False) -> dict[Place, str]:
    """For each place the name of its class. Names that differ in case only are one class if they are in the same folder
    of different splits, and the first spelling is kept; else they are different classes.

    Args:
        splits: the folders of splits.
        join: whether names are one class in different folders, too, but never beside each other.
    """
    alike: dict[str, dict[Place, None]] = {}
    for place in places:
        alike.setdefault(normalized(place[1]), {})[place] = None
    spelling: dict[Place, str] = {}
    for group in alike.values():
        names = list(dict.fromkeys(name for _, name in group))
        around = {tuple(each.name for each in _chain(folder) if each not in splits) for folder, _ in group}
        differ = len({folder for folder, _ in group}) < len(group) or (len(around) > 1 and not join)
        spelling |= {place: place[1] if differ else names[0] for place in group}
    return spelling


def _matches(names: Iterable[str], wanted: Sequence[str]) -> Mapping[str, str]:
    """For each name that stands for a wanted class that class: the same name, or in another case of letters; if there
    is none, its plural. Where names differ in case only, the one that is spelled like the wanted class is taken.
    """
    names = set(names)
    forms = {normalized(name) for name in names}
    wanted_forms = {normalized(each): each for each in wanted}
    plurals = {form + "s": each for form, each in wanted_forms.items() if form not in forms}
    shown = {printable(name): name for name in names}  # the class names of a run are printable
    same = {name: each for each in wanted if (name := each if each in names else shown.get(each))}
    exact = set(map(normalized, same))
    of_form = {**plurals, **wanted_forms}
    found = {name: of_form.get(normalized(name)) for name in names if normalized(name) not in exact}
    return {name: each for name, each in found.items() if each} | same
