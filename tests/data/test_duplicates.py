import hashlib
from dataclasses import replace

import numpy as np
import pytest

from transfer_learning.data.duplicates import duplicates
from transfer_learning.data.images import Images


def images(labels, digests, splits=None):
    names = [f"image {n}" for n in range(len(digests))]
    found = Images(names, np.array(labels), ("cat", "dog"), list(digests), read=pytest.fail)
    split_names = {"t": "train", "v": "val", "e": "test"}
    return replace(found, splits=splits and [split_names[each] for each in splits])


def found_in(images, kept_splits=()):
    return duplicates(images, np.arange(len(images.names)), kept_splits)


def kept(found, kept_splits=()):
    return sorted(set(range(len(found.names))) - set(found_in(found, kept_splits)))


def test_one_of_equal_images_is_kept_and_none_of_contradictory_ones():
    found = images([0, 0, 1, 1, 0, 1], "aabcdd")
    assert found_in(found) == {
        1: ("the same bytes as another image", "image 0"),
        4: ("the same bytes as an image of another class", "image 5"),
        5: ("the same bytes as an image of another class", "image 4"),
    }


def test_empty_files_are_no_copies():
    """They are left out as unreadable."""
    empty = hashlib.sha256(b"").hexdigest()
    assert found_in(images([0, 1, 0, 0], [empty, empty, "a", "a"])) == {
        3: ("the same bytes as another image", "image 2")
    }


@pytest.mark.parametrize(
    "labels, digests, splits, expected",
    [
        ([0, 0, 1], "aab", "tet", [1, 2]),  # of a training and a test image the test image
        ([0, 0, 1], "aab", "etv", [0, 2]),  # in any order
        ([0, 0, 1], "aab", "tvv", [1, 2]),
        ([0, 0, 1], "aab", "vet", [1, 2]),
        ([0, 0, 0], "aaa", "tve", [2]),
        ([0, 0, 1, 1], "aabb", "ttee", [0, 2, 3]),  # the test images stay, twice or not
        ([0, 0, 1, 1], "aabb", "ttvv", [0, 2, 3]),
        ([0, 1, 0, 1], "aaaa", "ttee", [2, 3]),  # contradictory ones too
        ([0, 1, 0, 1], "aabb", "ttve", [3]),
        ([0, 1, 0, 1], "aabc", "tttt", [2, 3]),
        ([0, 1], "ab", "te", [0, 1]),
    ],
)
def test_no_given_test_image_is_ever_left_out(labels, digests, splits, expected):
    assert kept(images(labels, digests, splits), kept_splits=("val", "test")) == expected


def test_splits_that_are_not_kept_do_not_count():
    found = images([0, 0, 1, 1], "aabb", "ttee")
    assert kept(found) == [0, 2]


def test_validation_images_that_folds_will_divide_are_like_training_images():
    found = images([0, 0, 0, 1, 1, 1], "aabccc", "vvtvte")
    assert kept(found, kept_splits=["test"]) == [0, 2, 5]


def test_the_split_of_the_other_image_is_named():
    found = images([0, 0, 1], "aab", "tev")
    assert found_in(found, kept_splits=("val", "test")) == {0: ("the same bytes as a test image", "image 1")}


def test_only_images_that_may_be_used_count():
    found = images([0, 0, 0, 1], "aaab")
    assert duplicates(found, np.array([1, 2, 3])) == {2: ("the same bytes as another image", "image 1")}


def test_copies_that_stay_in_given_splits_are_counted(caplog):
    with caplog.at_level("INFO"):
        found_in(images([0, 1, 0, 0], "aabb", "eevv"), kept_splits=("val", "test"))
    (line,) = caplog.messages
    assert line.startswith("2 given validation or test images have the same bytes") and "image 1, image 3" in line
