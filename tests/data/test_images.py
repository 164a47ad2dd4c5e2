import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.images import Images, Source, unlabelled
from transfer_learning.data.preprocessing import Preprocessing, decode
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


def test_an_empty_file_to_predict_is_called_so(tmp_path):
    (tmp_path / "a.png").touch()
    _, remarks = decode(unlabelled([tmp_path / "a.png", str(tmp_path / "b.png")]), Preprocessing(8), range(2))
    assert remarks["unreadable"][0] == "ValueError: the file is empty"
    assert remarks["unreadable"][1].startswith("FileNotFoundError: ")


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


def netpbm(maximum, colour):
    header = f"{'P6' if colour else 'P5'} 32 40 {maximum}\n".encode()
    values = np.add.outer(np.arange(40), np.arange(32 * (3 if colour else 1))) * 900 % (maximum + 1)
    return header + values.astype(">u2").tobytes()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", ["tiff, 16 bits", "tiff, 32 bits", "png, 16 bits", "pgm, 12 bits", "ppm, 12 bits"])
def test_opened_images_have_the_pixels_of_their_files(tmp_path, kind, orientation):
    path = tmp_path / f"image.{kind[:3]}"
    if "12 bits" in kind:
        path.write_bytes(netpbm(4095, colour="ppm" in kind))
    else:
        values = np.add.outer(np.arange(40), np.arange(32)) * (900 if "16" in kind else 2**25)
        exif = Image.Exif()
        exif[0x0112] = orientation
        values = values.astype(np.uint16 if "16" in kind else np.int32)
        Image.fromarray(values).save(path, kind[:4].strip(","), exif=exif)
    opened = Image.open(path)
    found = unlabelled([str(path), opened, opened])  # the same image twice
    for depth in ("dtype", "image")[: 1 if "ppm" in kind else 2]:  # Pillow reads only the upper bytes of those
        pixels, remarks = decode(found, Preprocessing(24, depth=depth), [0, 1, 2])
        assert remarks["unreadable"] == {} and len(np.unique(pixels[0])) > 9
        assert np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2])


@pytest.mark.parametrize(
    ("item", "found"),
    [
        (3, "int"),
        (np.zeros((4, 5, 3)), r"\(4, 5, 3\) float64"),
        (np.zeros((3, 4, 5), np.uint8), r"\(3, 4, 5\) uint8"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"\(1, 4, 5, 3\) uint8"),
        (np.zeros(5, np.uint8), r"\(5,\) uint8"),
        (np.zeros((), np.uint8), r"\(\) uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\) uint8"),
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
