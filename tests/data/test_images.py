import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.images import Images, Source, unlabelled
from transfer_learning.data.sources.cartoons import Cartoons
from transfer_learning.data.sources.dogs_vs_cats import DogsVsCats
from transfer_learning.data.sources.folder import Folder
from transfer_learning.utilities.errors import UserError


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


def test_files_images_and_pixels_to_predict(tmp_path):
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200), (50, 50, 50)]
    Image.new("RGB", (5, 4), colours[0]).save(tmp_path / "a.png")
    two_frames = dict(save_all=True, append_images=[Image.new("RGB", (5, 4))])
    Image.new("RGB", (5, 4), colours[1]).save(tmp_path / "b.gif", **two_frames)
    opened = Image.open(tmp_path / "b.gif")
    pixels = np.full((4, 5, 3), colours[2], dtype=np.uint8)
    found = unlabelled([str(tmp_path / "a.png"), opened, pixels, np.full((4, 5), 50, dtype=np.uint8)])
    assert found.names == [str(tmp_path / "a.png"), "image 1", "image 2", "image 3"]
    assert found.labels.tolist() == [0] * 4 and found.class_names == ()
    for index, colour in enumerate(colours):
        with found.read(index) as image:
            assert image.convert("RGB").getpixel((0, 0)) == colour and image.size == (5, 4)
    opened.seek(1)  # reading it has not closed the caller's image


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (3, "int"),
        (np.zeros((4, 5, 3)), r"\(4, 5, 3\) float64"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\) uint8"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"\(1, 4, 5, 3\) uint8"),
    ],
)
def test_other_items_are_refused(item, found):
    with pytest.raises(UserError, match=f"^image 1 is {found}; expected a file"):
        unlabelled(["a.png", item])


@pytest.mark.parametrize("late", [b"", b"half of a file", None])
def test_a_file_that_changes_after_it_was_listed_stops_the_run_and_nothing_is_cached(folder, data_module, late):
    """As if it was being copied: its digest is that of other bytes than those that are decoded."""
    changing = folder / "a" / "4.png"
    whole = changing.read_bytes()

    class Copying(Folder):
        def list_images(self, file_digests):
            listed = super().list_images(file_digests)
            changing.write_bytes(whole + b"0" if late is None else late)
            return listed

    with pytest.raises(UserError, match=r"a/4\.png: changed after it was listed\. Run it again"):
        data_module(Copying(folder), (6, 3, 3), image_size=8, batch_size=5)
    changing.write_bytes(whole)
    data = data_module(Folder(folder), (6, 3, 3), image_size=8, batch_size=5)
    assert len(data.readable) == 24
