import contextlib
import hashlib
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import needs_linux_names
from transfer_learning.data.digests import UNREADABLE, FileDigests
from transfer_learning.data.sources.folder import NO_CLASS, Folder, labelled_images
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.text import printable


def list_images(root, classes=None, **arguments):
    return Folder(root, classes, **arguments).list_images(FileDigests())


def found(root, classes=None):
    images = list_images(root, classes)
    return sorted(
        (name.removeprefix(f"{root}/"), images.class_names[label]) for name, label in zip(images.names, images.labels)
    )


def test_class_folders_in_any_case_of_letters(tmp_path, write_image):
    for seed, name in enumerate(["PetImages/Cat/1.jpg", "PetImages/Dog/1.jpg", "more/cat/2.PNG", "more/DOG/x y.jpg"]):
        write_image(tmp_path / name, seed)
    assert found(tmp_path, classes=("cat", "dog")) == [
        ("PetImages/Cat/1.jpg", "cat"),
        ("PetImages/Dog/1.jpg", "dog"),
        ("more/DOG/x y.jpg", "dog"),
        ("more/cat/2.PNG", "cat"),
    ]


def test_kaggles_flat_layout_and_images_without_a_class(tmp_path, write_image):
    for seed, name in enumerate(
        ["train/cat.0.jpg", "train/dog.0.jpg", "train/dog.12.jpg", "test1/1.jpg", "test1/2.jpg"]
    ):
        write_image(tmp_path / name, seed)
    expected = [("train/cat.0.jpg", "cat"), ("train/dog.0.jpg", "dog"), ("train/dog.12.jpg", "dog")]
    assert found(tmp_path, classes=("cat", "dog")) == expected
    assert list_images(tmp_path).left_out == {NO_CLASS: [f"{tmp_path}/test1/1.jpg", f"{tmp_path}/test1/2.jpg"]}


def test_folders_are_classes_whatever_the_names_of_their_files(tmp_path, write_image):
    for seed, name in enumerate(
        ["rose/IMG.1.png", "rose/DSC.1.png", "tulip/IMG.2.png", "tulip/Screenshot at 10.31.22.png", "test1/7.png"]
    ):
        write_image(tmp_path / name, seed)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").write_text("a folder without an image is no class")
    assert list_images(tmp_path).class_names == ("rose", "tulip")


def test_any_number_of_class_folders_already_split_or_not(tmp_path, write_image):
    for seed, name in enumerate(
        ["train/rose/a.jpg", "train/tulip/b.jpg", "validation/rose/c.jpg", "validation/daisy/img.1.jpg"]
    ):
        write_image(tmp_path / name, seed)
    images = list_images(tmp_path)
    assert images.class_names == ("daisy", "rose", "tulip")
    assert np.bincount(images.labels).tolist() == [1, 2, 1]


def test_a_format_that_needs_a_plugin_is_left_out_and_the_plugin_named(tmp_path, write_image, monkeypatch):
    monkeypatch.setattr("transfer_learning.data.formats.NEEDS", {".xyz": "a plugin: pip install it"})
    write_image(tmp_path / "rose" / "1.png", 0)
    (tmp_path / "daisy").mkdir()
    (tmp_path / "daisy" / "phone.XYZ").write_bytes(b"from a telephone")
    with pytest.raises(
        ArgumentError, match="classes found: rose; expected .*Left out: needs a plugin: pip install it: "
    ):
        list_images(tmp_path)
    write_image(tmp_path / "daisy" / "2.png", 1)
    assert list_images(tmp_path).left_out == {"needs a plugin: pip install it": [f"{tmp_path}/daisy/phone.XYZ"]}


def test_the_order_of_images_does_not_depend_on_the_file_system(tmp_path, write_image, monkeypatch):
    names = ["b/2.png", "b/1.png", "a/3.png", "a/10.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed)
    before = list_images(tmp_path)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: contextlib.nullcontext(list(scandir(path))[::-1]))
    assert list_images(tmp_path).names == before.names == [str(tmp_path / name) for name in sorted(names)]


def test_hidden_files_do_not_count(tmp_path, write_image):
    for seed, name in enumerate(["a/1.png", "b/1.png", "a/._1.png", "__MACOSX/a/1.png", ".trash/c/1.png"]):
        write_image(tmp_path / name, seed)
    assert found(tmp_path) == [("a/1.png", "a"), ("b/1.png", "b")]


@pytest.mark.parametrize(
    "names, class_names, message",
    [
        ([], None, "classes found: none; expected at least two"),
        (["a/1.png"], None, "classes found: a; expected at least two"),
        (["1.png", "2.png"], None, "classes found: none"),
        (["cat/1.png", "fish/1.png"], ("cat", "dog"), "classes found: cat; expected cat and dog"),
    ],
)
def test_fewer_classes_than_needed(tmp_path, write_image, names, class_names, message):
    for seed, name in enumerate(names):
        write_image(tmp_path / name, seed)
    with pytest.raises(ArgumentError, match=message) as error:
        list_images(tmp_path, class_names)
    expected = ("classes", list(class_names)) if class_names else ("root", str(tmp_path))
    assert (error.value.argument, error.value.value) == expected


def test_no_such_folder(tmp_path):
    with pytest.raises(ArgumentError, match="root='.*nowhere': no such folder"):
        list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("arguments", [{"root": 3}, {"root": "x", "classes": 5}, {"root": "x", "folder": "y"}])
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ArgumentError) as error:
        Folder(**arguments)
    assert error.value.argument == list(arguments)[-1]


NAME = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(NAME.filter(lambda name: not name.startswith(".")), min_size=1, max_size=5))
@example(["@eaDir", "__MACOSX"])  # with .png, not those of systems
@example(["two words", "Ñandú 猫", "a.b.jpg", "-rf", "$HOME;*?", "new\nline"])
def test_files_may_have_any_name(tmp_path_factory, write_image, names):
    root = tmp_path_factory.mktemp("names")
    for folder in ("a cat", "Hündin"):
        (root / folder).mkdir()
        for name in names:
            (root / folder / f"{name}.png").write_bytes(b"not read here")
    images = list_images(root)
    assert images.class_names == ("a cat", "Hündin")
    assert np.bincount(images.labels).tolist() == [len(set(names))] * 2


@needs_linux_names
@pytest.mark.parametrize("name", ["x\x07", "x\u202e", "x\udcff"])
def test_classes_that_would_be_printed_alike_are_refused(tmp_path, write_image, name):
    escaped = printable(name)
    for seed, each in enumerate((name, escaped, "other")):
        write_image(tmp_path / each / "1.png", seed)
    with pytest.raises(ArgumentError) as error:
        Folder(tmp_path).list_images(FileDigests())
    assert error.value.argument == "root"
    names = ", ".join(map(repr, sorted((escaped, name))))
    expected = f"the classes {names} would all be called {escaped} in messages and results. Rename all"
    assert error.value.message.startswith(expected)


@needs_linux_names
def test_a_name_that_is_not_unicode_can_be_printed_and_written(tmp_path, write_image):
    for seed, name in enumerate(["a/1.png", "b/1.png"]):
        write_image(tmp_path / name, seed)
    (tmp_path / "a" / "1.png").rename(tmp_path / "a" / os.fsdecode(b"caf\xe9.png"))
    images = list_images(tmp_path)
    assert images.names[0] == f"{tmp_path}/a/caf\\udce9.png" and images.names[0].encode()
    assert images.read(0).size == (24, 18)


def test_digests_are_those_of_the_files_and_reading_is_left_for_later(tmp_path, write_image):
    for seed, name in enumerate(["a/1.png", "a/2.png", "b/1.png"]):
        write_image(tmp_path / name, seed)
    (tmp_path / "b" / "2.png").symlink_to(tmp_path / "nowhere")
    images = list_images(tmp_path)
    expected = [
        hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("a/1.png", "a/2.png", "b/1.png")
    ]
    assert images.digests[:3] == expected and images.digests[3].startswith(UNREADABLE)
    assert images.labels.tolist() == [0, 0, 1, 1] and images.labels.dtype == np.int64
    with images.read(2) as image, Image.open(tmp_path / "b" / "1.png") as same:
        assert image.tobytes() == same.tobytes()
    with pytest.raises(FileNotFoundError):
        images.read(3)


def test_digests_that_are_kept_are_used(tmp_path, write_image):
    for seed, name in enumerate(["a/1.png", "b/1.png"]):
        write_image(tmp_path / name, seed)
    asked = []

    def file_digests(paths):
        asked.extend(paths)
        return ["kept"] * len(paths)

    assert Folder(tmp_path).list_images(file_digests).digests == ["kept", "kept"]
    assert asked == [tmp_path / "a" / "1.png", tmp_path / "b" / "1.png"]


def test_the_real_photographs(photographs):
    images = list_images(photographs, classes=("cat", "dog"))
    assert np.bincount(images.labels).tolist() == [2500, 2500]
    assert all(("/cat." in name) == (label == 0) for name, label in zip(images.names, images.labels))


def evaluated(root, class_names):
    images = labelled_images(root, class_names)
    assert images.class_names == class_names
    return [(os.path.relpath(name, root), class_names[code]) for name, code in zip(images.names, images.labels)]


def test_labelled_images_of_known_classes_and_what_is_left_out(tmp_path, write_image, caplog):
    names = ["Dog/1.jpg", "x/dog/2.jpg", "bird/1.jpg", "bird/2.jpg", "3.jpg", "test/dog/4.png", "dog/notes.txt"]
    for seed, name in enumerate(names[:-1]):
        write_image(tmp_path / name, seed)
    (tmp_path / "dog").mkdir()
    (tmp_path / names[-1]).write_text("no image")
    with caplog.at_level("INFO"):
        found = evaluated(tmp_path, ("cat", "dog"))
    assert found == [("Dog/1.jpg", "dog"), ("test/dog/4.png", "dog"), ("x/dog/2.jpg", "dog")]
    assert f"left out, of other classes: bird: 2 ({tmp_path}/bird/1.jpg, {tmp_path}/bird/2.jpg)" in caplog.text
    assert f"left out, neither folder nor file name tells a class: 1 ({tmp_path}/3.jpg)" in caplog.text
    assert f"left out, not an image by its name: 1 ({tmp_path}/dog/notes.txt)" in caplog.text
    assert f"{tmp_path}: no images of cat" in caplog.text


def test_labelled_images_in_the_flat_layout_have_digests(tmp_path, write_image):
    files = [write_image(tmp_path / f"{name}.{n}.png", n) for name in ("cat", "dog") for n in (1, 2)]
    assert evaluated(tmp_path, ("dog", "cat")) == [(file.name, file.name[:3]) for file in files]
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert labelled_images(tmp_path, ("dog", "cat")).digests == expected


def test_labelled_images_below_the_home_folder(tmp_path, write_image, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = write_image(tmp_path / "photos" / "cat" / "1.png", 0)
    assert labelled_images("~/photos", ("cat", "dog")).names == [str(file)]
    with pytest.raises(UserError, match="^~/nowhere: no such folder"):
        labelled_images("~/nowhere", ("cat", "dog"))


def test_folders_without_images_of_known_classes_are_refused(tmp_path, write_image):
    write_image(tmp_path / "bird" / "1.jpg", 0)
    with pytest.raises(UserError, match="no images of cat, dog; expected a folder of class folders"):
        labelled_images(tmp_path, ("cat", "dog"))
    with pytest.raises(UserError, match="nowhere: no such folder"):
        labelled_images(tmp_path / "nowhere", ("cat", "dog"))
    with pytest.raises(UserError, match=r"1\.jpg: a file, not a folder"):
        labelled_images(tmp_path / "bird" / "1.jpg", ("cat", "dog"))
    with pytest.raises(UserError, match="If this folder is a class, name the folder above it"):
        labelled_images(tmp_path / "bird", ("cat", "dog"))


def test_a_folder_is_visited_once_whatever_links_lead_to_it(tmp_path, write_image, caplog):
    for seed, name in enumerate(("cat/1.png", "dog/1.png")):
        write_image(tmp_path / name, seed)
    (tmp_path / "dog" / "again").symlink_to(tmp_path)
    with caplog.at_level("INFO"):
        assert len(labelled_images(tmp_path, ("cat", "dog")).names) == len(list_images(tmp_path).names) == 2
    assert f"left out, links to folders that are listed already: 1 ({tmp_path}/dog/again)" in caplog.text


def test_names_of_files_tell_a_class_only_where_folders_do_not(tmp_path, write_image):
    for seed, name in enumerate(("bird/cat.5.png", "dog/1.png")):
        write_image(tmp_path / name, seed)
    assert evaluated(tmp_path, ("cat", "dog")) == [("dog/1.png", "dog")]


def test_splits_of_folders_and_what_is_no_image(tmp_path, write_image):
    for seed, name in enumerate(["train/x/1.png", "valid/X/2.png", "test/y/3.png", "test/z/4.png", "5.png"]):
        write_image(tmp_path / name, seed)
    (tmp_path / "train/notes.txt").write_text("no image")
    images = list_images(tmp_path)
    assert images.class_names == ("x", "y", "z")
    splits = {os.path.relpath(name, tmp_path): split for name, split in zip(images.names, images.splits)}
    assert splits == {"train/x/1.png": "train", "valid/X/2.png": "val", "test/y/3.png": "test", "test/z/4.png": "test"}
    assert images.left_out == {
        "not an image by its name": [f"{tmp_path}/train/notes.txt"],
        NO_CLASS: [f"{tmp_path}/5.png"],
    }


def test_classes_in_this_order(tmp_path, write_image):
    for seed, name in enumerate(["cat/1.png", "bird/2.png", "Dogs/3.png", "fish/4.png"]):
        write_image(tmp_path / name, seed)
    images = list_images(tmp_path, ["dog", "cat"])
    assert images.class_names == ("dog", "cat") and images.labels.tolist() == [0, 1]
    assert list(images.left_out) == ["of other classes: bird, fish"]


@pytest.mark.parametrize(
    "pattern, expected",
    [
        (r"(P\d+)_.*", ["P1", "P1", "P12"]),
        (r"P\d+", ["P1", "P1", "P12"]),
        (r"P(\d)", ["1", "1", "1"]),
        (r".*_(\d+)", ["1", "2", "1"]),
    ],
)
def test_a_pattern_tells_the_groups(tmp_path, write_image, pattern, expected):
    for seed, name in enumerate(["a/P1_1.png", "a/P12_1.png", "b/P1_2.png", "b/other.png"]):
        write_image(tmp_path / name, seed)
    images = list_images(tmp_path, group_pattern=pattern)
    groups = dict(zip((os.path.relpath(name, tmp_path) for name in images.names), images.groups))
    assert [groups[name] for name in ("a/P1_1.png", "b/P1_2.png", "a/P12_1.png")] == expected
    assert groups["b/other.png"] == f"{tmp_path}/b/other.png"  # alone


def test_groups_that_are_easily_taken_for_one_are_named(tmp_path, write_image, caplog):
    for seed, name in enumerate(["a/P1_1.png", "a/p1_2.png", "b/p01_3.png", "b/x.png", "b/X.png"]):
        write_image(tmp_path / name, seed)
    with caplog.at_level("INFO"):
        list_images(tmp_path, group_pattern=r"[pP](\d+)_")
        list_images(tmp_path, group_pattern=r"[pP]\d+")
    assert [record.message for record in caplog.records if "alone" not in record.message] == [
        "names that differ only in how a number is written are different groups here: '01' and '1'",
        "names that differ only in case are different groups here: P1 and p1",
    ]


@pytest.mark.parametrize(
    "pattern, message", [("(P", "expected a regular expression"), ("Q", "gives no group for any file")]
)
def test_patterns_that_tell_no_group(tmp_path, write_image, pattern, message):
    for seed, name in enumerate(["a/P1_1.png", "b/P1_2.png"]):
        write_image(tmp_path / name, seed)
    with pytest.raises(ArgumentError, match=message) as error:
        list_images(tmp_path, group_pattern=pattern)
    assert error.value.argument == "group_pattern"


def test_folders_that_may_be_splits_or_classes_stop_and_say_how_to_decide(tmp_path, write_image):
    for seed, name in enumerate(["bus/1.png", "train/2.png", "val/3.png"]):
        write_image(tmp_path / name, seed)
    with pytest.raises(
        ArgumentError, match=r"root=.*may be a split or a class.*List the classes, such as classes="
    ) as error:
        list_images(tmp_path)
    assert error.value.argument == "root"
    assert list_images(tmp_path, ["bus", "train"]).class_names == ("bus", "train")
