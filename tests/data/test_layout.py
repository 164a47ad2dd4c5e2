from pathlib import Path

import pytest

from transfer_learning.data.layout import labels_of
from transfer_learning.utilities.errors import UserError
from transfer_learning.utilities.text import printable


def told(text, wanted=None):
    """For each path of a text its class and its split, "-" for none, and "!" for a class that is not wanted."""
    files = [Path(name) for name in text.split()]
    return " ".join(
        f"{label.class_name or '-'}{'' if label.is_wanted or not label.class_name else '!'}:{label.split or '-'}"
        for label in labels_of(files, wanted)
    )


@pytest.mark.parametrize(
    "paths, expected",
    [
        # class folders
        ("cat/1.jpg dog/1.jpg 3.jpg", "cat:- dog:- -:-"),
        ("PetImages/Cat/1.jpg PetImages/Dog/1.jpg", "Cat:- Dog:-"),
        ("rose/IMG.1.jpg tulip/IMG.2.jpg", "rose:- tulip:-"),
        # splits around class folders
        ("train/x/1.jpg val/y/1.jpg test/x/1.jpg", "x:train y:val x:test"),
        ("Training/x/1.jpg valid/y/1.jpg Testing/x/1.jpg", "x:train y:val x:test"),
        ("data/train/x/1.jpg data/validation/y/1.jpg data/test_set/x/1.jpg", "x:train y:val x:test"),
        ("train/x/1.jpg train/2.jpg test/7.jpg", "x:train -:train -:test"),
        # splits inside class folders
        ("x/train/1.jpg x/val/2.jpg y/train/1.jpg y/test/2.jpg", "x:train x:val y:train y:test"),
        (
            "seg_train/seg_train/sea/1.jpg seg_test/seg_test/sea/1.jpg seg_train/seg_train/ice/1.jpg",
            "sea:train sea:test ice:train",
        ),
        ("1_train/x/1.jpg 2_val/x/1.jpg my-train/x/1.jpg", "x:train x:val x:-"),
        ("x_train/1.jpg y_train/1.jpg", "x_train:- y_train:-"),
        ("x/1.jpg y/1.jpg test/x/1.jpg", "x:- y:- x:test"),
        ("cat/train/1.jpg cat/test/2.jpg bird/3.jpg", "cat:train cat:test bird:-"),
        # file names
        ("cat.1.jpg dog.1.jpg 3.jpg", "cat:- dog:- -:-"),
        ("train/cat.1.jpg train/dog.2.jpg test1/3.jpg", "cat:train dog:train -:test"),
        ("train/cat.1.jpg train/dog.2.jpg validation/cat.3.jpg", "cat:train dog:train cat:val"),
        # a class that is called like a split
        ("bus/1.jpg car/1.jpg train/1.jpg", "bus:- car:- train:-"),
        ("train/bus/1.jpg train/train/1.jpg val/bus/1.jpg val/train/1.jpg", "bus:train train:train bus:val train:val"),
        (
            "train/dress/1.jpg train/test/1.jpg test/dress/1.jpg test/test/1.jpg",
            "dress:train test:train dress:test test:test",
        ),
        ("vehicles/bus/1.jpg vehicles/Train/1.jpg", "bus:- Train:-"),
        ("running/1.jpg training/1.jpg", "running:- training:-"),
        ("rose/1.jpg tulip/1.jpg test1/1.jpg train_set/2.jpg", "rose:- tulip:- -:test -:train"),
        ("extra/1.jpg train/cat.1.jpg train/dog.1.jpg", "extra:- -:train -:train"),
        # names that differ in case
        ("a/1.jpg A/1.jpg b/1.jpg", "a:- A:- b:-"),
        ("train/Cat/1.jpg val/cat/1.jpg train/dog/1.jpg", "Cat:train Cat:val dog:train"),
        ("train/a/1.jpg train/A/1.jpg test/a/1.jpg", "a:train A:train a:test"),
        ("a.1.jpg A.1.jpg b.1.jpg", "a:- A:- b:-"),
        ("train/a.1.jpg test/A.2.jpg train/b.3.jpg", "a:train a:test b:train"),
        ("x/Straße/1.jpg x/STRASSE/1.jpg", "Straße:- STRASSE:-"),
        ("upper/A/1.jpg lower/a/1.jpg", "A:- a:-"),
        ("train/cafe\u0301/1.jpg test/caf\u00e9/1.jpg train/tea/1.jpg", "cafe\u0301:train cafe\u0301:test tea:train"),
    ],
)
def test_class_and_split_of_paths(paths, expected):
    assert told(paths) == expected


@pytest.mark.parametrize(
    "paths, wanted, expected",
    [
        ("cat/1.jpg bird/1.jpg dog/1.jpg", ["dog", "cat"], "cat:- bird!:- dog:-"),
        ("Cats/1.jpg DOG/1.jpg x/Dog/1.jpg", ["cat", "dog"], "cat:- dog:- dog:-"),
        ("dog/1.jpg dogs/1.jpg", ["cat", "dog"], "dog:- dogs!:-"),
        ("x/Cat/1.jpg y/CAT/1.jpg y/dog/1.jpg", ["cat", "dog"], "cat:- cat:- dog:-"),
        ("bus/1.jpg car/1.jpg train/train/1.jpg", ["bus", "train"], "bus:- car!:- train:-"),
        ("dog/1.jpg dogs/1.jpg", ["dog", "dogs"], "dog:- dogs:-"),
        ("cat/tabby/1.jpg dog/pug/1.jpg fish/1.jpg", ["cat", "dog"], "cat:- dog:- fish!:-"),
        ("a/1.jpg A/1.jpg b/1.jpg", ["A", "b"], "a!:- A:- b:-"),
        ("train/a/1.jpg val/A/1.jpg train/b/1.jpg", ["A", "b"], "A:train A:val b:train"),
        ("pictures/cat.1.jpg pictures/dog.1.jpg pictures/fish.1.jpg", ["cat", "dog"], "cat:- dog:- fish!:-"),
        ("bird/cat.1.jpg dog/1.jpg", ["cat", "dog"], "bird!:- dog:-"),
        # the folder train is a split, so an unwanted class in it is not of the class train
        ("train/bus/1.jpg train/car/1.jpg train/train/1.jpg", ["car", "train"], "bus!:train car:train train:train"),
        # classes decide what is ambiguous
        ("bus/1.jpg train/1.jpg test/1.jpg", ["bus", "train"], "bus:- train:- test!:-"),
        ("train/1.jpg test/1.jpg", ["train", "test"], "train:- test:-"),
        ("cat/1.jpg dog/1.jpg test/1.jpg", ["cat", "dog"], "cat:- dog:- test!:-"),
    ],
)
def test_the_classes_that_are_wanted(paths, wanted, expected):
    assert told(paths, wanted) == expected


@pytest.mark.parametrize(
    "paths, message",
    [
        ("bus/1.jpg train/1.jpg test/1.jpg", r"test and train beside bus may be a split or a class"),
        ("x/bus/1.jpg x/car/2.jpg x/train/1.jpg x/val/1.jpg", "train and val beside bus, car may be"),
        ("bus/1.jpg car/1.jpg train/steam/1.jpg train/freight/1.jpg", "train beside bus, car may be"),
        ("bus/1.jpg car/1.jpg train/train/1.jpg", "train beside bus, car may be"),
    ],
)
def test_folders_that_may_be_splits_or_classes(paths, message):
    with pytest.raises(UserError, match=message) as error:
        told(paths)
    assert "classes=[" in str(error.value)


def test_what_was_decided_is_said(caplog):
    with caplog.at_level("INFO"):
        told("bus/1.jpg car/1.jpg train/1.jpg")
        told("a/1.jpg A/1.jpg b/1.jpg")
        told("train/Cat/1.jpg val/cat/1.jpg")
    lines = [record.message for record in caplog.records]
    assert lines == [
        "train: taken as a class, not as a split, since bus, car beside it is one",
        "names that differ only in case are different classes here: A and a",
        "names that differ only in case are one class here: Cat and cat",
    ]


def test_class_names_of_a_run_find_the_folders_whose_names_cannot_be_shown_as_they_are():
    names = ["cat", "cat\u200b", "dog\xa0", "dog", "x\udce9"]
    files = [Path(name, "1.jpg") for name in names]
    assert [label.class_name for label in labels_of(files, list(map(printable, names)))] == list(map(printable, names))
    assert [label.class_name for label in labels_of(files, names)] == names


@pytest.mark.parametrize(
    "paths, around",
    [
        ("rose/2019/1.jpg rose/2020/1.jpg tulip/2019/1.jpg", "rose, tulip"),
        ("ill/P1/1.jpg well/P2/1.jpg", "ill, well"),
        ("rose/1.jpg rose/more/2.jpg tulip/3.jpg", "rose, the root"),
        ("train/ill/P1/1.jpg train/well/P2/1.jpg val/ill/P3/1.jpg", "ill, well"),
        ("color/rose/1.jpg color/tulip/1.jpg grey/rose/1.jpg", "color, grey"),
        ("rose/1.jpg tulip/1.jpg", None),
        ("PetImages/Cat/1.jpg PetImages/Dog/1.jpg", None),
        ("train/x/1.jpg val/y/1.jpg test/x/1.jpg", None),
        ("x/train/1.jpg x/val/2.jpg y/train/1.jpg y/test/2.jpg", None),
    ],
)
def test_class_folders_in_several_folders_are_said(paths, around, caplog):
    with caplog.at_level("INFO"):
        told(paths)
    found = [message for message in caplog.messages if "folder that it is in" in message]
    assert len(found) == (around is not None)
    assert around is None or f"class folders are in {around}. If those are the classes, list them" in found[0]


def test_a_folder_of_pictures_beside_splits(caplog):
    """The classes that the error names are those that can be listed."""
    paths = "train/rose/1.jpg train/tulip/1.jpg test/rose/1.jpg plots/loss.png"
    with pytest.raises(UserError, match=r"such as classes=\[rose,tulip\]"):
        told(paths)
    assert told(paths, ["rose", "tulip"]) == "rose:train tulip:train rose:test plots!:-"


def test_folders_that_are_no_classes_are_not_said_to_differ_in_case(caplog):
    with caplog.at_level("INFO"):
        assert told("Images/cat/1.jpg x/images/dog/1.jpg", ["cat", "dog"]) == "cat:- dog:-"
    assert not caplog.messages
