import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.images import Images, Source
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.sources.dogs_vs_cats import DogsVsCats
from transfer_learning.data.sources.folder import Folder


def images(**columns):
    """Four images; each is one pixel whose red value is its index."""
    return Images(
        names=["a", "b", "c", "d"],
        labels=np.array([0, 1, 0, 1]),
        class_names=("cat", "dog"),
        digests=["1", "2", "3", "4"],
        read=lambda index: Image.new("RGB", (1, 1), (int(index), 0, 0)),
        **columns,
    )


def test_taken_images_keep_all_that_belongs_to_them_in_the_new_order():
    taken = images(splits=["train", None, "val", "test"], groups=["x", "x", "y", "z"]).take(np.array([3, 1, 2]))
    assert taken.names == ["d", "b", "c"] and taken.digests == ["4", "2", "3"] and taken.class_names == ("cat", "dog")
    assert taken.labels.tolist() == [1, 1, 0]
    assert taken.splits == ["test", None, "val"] and taken.groups == ["z", "x", "y"]
    assert [taken.read(index).getpixel((0, 0))[0] for index in range(3)] == [3, 1, 2]


def test_images_that_were_taken_can_be_taken_again():
    twice = images().take(np.array([3, 1, 2])).take(np.array([2, 0]))
    assert twice.names == ["c", "d"] and [twice.read(index).getpixel((0, 0))[0] for index in range(2)] == [2, 3]


def test_splits_and_groups_that_are_not_known_stay_none():
    taken = images().take(np.array([1]))
    assert taken.splits is None and taken.groups is None


@pytest.mark.parametrize("source", [Cartoons(), DogsVsCats(), Folder("photographs")])
def test_sources_follow_the_protocol(source):
    assert isinstance(source, Source)
