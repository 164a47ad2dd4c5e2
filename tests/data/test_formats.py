import importlib
import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from transfer_learning.data import formats
from transfer_learning.data.digests import FileDigests
from transfer_learning.data.formats import (
    FORMATS,
    count_frames,
    is_image_name,
    missing_plugin,
    open_image,
    readable_formats,
)
from transfer_learning.data.images import unlabelled
from transfer_learning.data.preprocessing import Preprocessing, decode
from transfer_learning.data.sources.folder import Folder

HEIC = "needs pillow-heif: pip install -e '.[formats]'"


@pytest.fixture
def without_plugin(monkeypatch):
    """As if pillow-heif were not installed."""
    Image.init()  # which registers all others, once
    for suffix in (".heic", ".heif", ".hif", ".heics", ".heifs"):
        monkeypatch.delitem(Image.EXTENSION, suffix, raising=False)
    monkeypatch.setattr(Image, "ID", [each for each in Image.ID if each != "HEIF"])


@pytest.mark.parametrize(
    "name, expected",
    [
        *[(f"photo.{suffix}", True) for suffix in ("jpg", "JPG", "png", "webp", "tiff", "heic", "HEIF", "hif", "avif")],
        *[
            (f"photo.{suffix}", False)
            for suffix in ("txt", "csv", "jpg.part", "heicx", "pdf", "h5", "mpg", "svg", "eps")
        ],
        ("heic", False),
    ],
)
def test_a_name_tells_whether_a_file_is_an_image_whatever_is_installed(without_plugin, tmp_path, name, expected):
    assert is_image_name(tmp_path / name) is expected


def test_a_missing_plugin_is_named(without_plugin, monkeypatch):
    for name in ("a.heic", "folder/A.HEIC", "a.heif", "a.hif"):
        assert missing_plugin(name) == HEIC
    assert not any(map(missing_plugin, ("a.jpg", "a.avif", "a.heicx", "heic", "image 3", "")))
    monkeypatch.delitem(Image.EXTENSION, ".avif")
    assert missing_plugin("a.avif").startswith("needs a Pillow with AVIF")


def test_the_plugin_is_registered_where_it_is_installed(monkeypatch):
    module = type(sys)("pillow_heif")
    module.register_heif_opener = lambda: Image.register_extension("HEIF", ".heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")  # restored afterwards
    importlib.reload(formats)
    assert missing_plugin("a.heic") is None and "HEIF" in readable_formats()


def test_a_file_that_needs_a_plugin_is_unreadable_for_that_reason(without_plugin, tmp_path):
    for name in ("photo.heic", "photo.jpg"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    listed = unlabelled([tmp_path / "photo.heic", tmp_path / "photo.jpg", tmp_path / "missing.heic"])
    unreadable = decode(listed, Preprocessing(4), range(3))[1]["unreadable"]
    assert unreadable[0] == HEIC and UnidentifiedImageError.__name__ in unreadable[1]
    assert "FileNotFoundError" in unreadable[2]


def test_it_is_read_as_soon_as_the_plugin_is_there(without_plugin, tmp_path, folder, data_module, monkeypatch, caplog):
    """The cache keeps no failure that another library would not have."""
    (folder / "a" / "photo.heic").write_bytes(b"a photograph")

    def names():
        data = data_module(Folder(folder), (6, 3, 3), image_size=8, batch_size=5)
        return [data.images.names[index] for index in data.splits["train"]]

    with caplog.at_level("INFO"):
        names()
    assert f"left out, {HEIC}: 1 ({folder}/a/photo.heic)" in caplog.text
    caplog.clear()
    monkeypatch.setitem(Image.EXTENSION, ".heic", "HEIF")
    opened = Image.open
    photo = Image.new("RGB", (9, 9))
    monkeypatch.setattr(Image, "open", lambda file, **_: photo if b"a photo" in file.getvalue() else opened(file))
    with caplog.at_level("INFO"):
        names()
    assert "left out" not in caplog.text


@pytest.mark.parametrize("name", ["photo.eps", "photo.jpg", "photo.png"])
def test_postscript_is_not_run_whatever_its_name_says(tmp_path, monkeypatch, name):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    Image.new("RGB", (9, 9)).save(tmp_path / name, format="EPS")
    with pytest.raises(UnidentifiedImageError):
        open_image(tmp_path / name)
    _, remarks = decode(unlabelled([tmp_path / name]), Preprocessing(4), [0])
    assert remarks["unreadable"] == {0: "UnidentifiedImageError: in none of the formats that are read"}


def test_formats_that_are_opened_are_pillows_and_start_no_other_program():
    Image.init()
    unknown = FORMATS - set(Image.OPEN)
    assert unknown <= {"AVIF", "HEIF", "MPO"}  # those that are not everywhere, and what the reader of JPEG returns
    assert not FORMATS & {"EPS", "PDF", "WMF"}
    assert set(readable_formats()) <= FORMATS


def test_a_photograph_of_a_telephone_is_read():
    heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32], pixels[32:, 32:] = (250, 120, 10), (10, 60, 200)
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels)).save(file, quality=95)
    found = Preprocessing(64)(Image.open(file))
    assert missing_plugin("a.heic") is None and np.abs(found.astype(int) - pixels).mean() < 3


def test_avif_is_read(tmp_path):
    pixels = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=95)
    assert missing_plugin(tmp_path / "a.avif") is None
    assert np.abs(Preprocessing(32)(Image.open(tmp_path / "a.avif")).astype(int) - pixels).max() < 6


def frames(count):
    return [Image.new("RGB", (20, 20), (80 * number, 0, 100)) for number in range(count)]


@pytest.mark.parametrize("suffix", ["gif", "png", "tiff", "webp", "avif"])
@pytest.mark.parametrize("count", [1, 3])
def test_frames_are_counted_and_the_first_one_is_used(tmp_path, suffix, count):
    first, *others = frames(count)
    first.save(tmp_path / f"a.{suffix}", **(dict(save_all=True, append_images=others) if others else {}))
    pixels, remarks = decode(unlabelled([tmp_path / f"a.{suffix}"]), Preprocessing(20), [0])
    assert remarks["frames"] == ({0: 3} if others else {}) and not remarks["unreadable"]
    assert np.abs(pixels[0].astype(int) - np.asarray(first)).max() < 6


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("suffix", ["gif", "tiff"])  # Pillow opens no WebP file that was cut
def test_a_later_frame_that_is_broken_does_not_cost_the_first(tmp_path, suffix):
    first, *others = [Image.fromarray(np.full((64, 64), 40 * number, np.uint8)) for number in range(1, 5)]
    first.save(tmp_path / "whole", suffix, save_all=True, append_images=others)
    whole, compared = (tmp_path / "whole").read_bytes(), 0
    for size in range(len(whole) - 1, len(whole) // 4, -len(whole) // 40):
        (tmp_path / "cut").write_bytes(whole[:size])
        try:
            Image.open(tmp_path / "cut").load()
        except Exception:  # the first frame is broken too
            continue
        pixels, remarks = decode(unlabelled([tmp_path / "cut"]), Preprocessing(64), [0])
        assert np.abs(pixels[0].astype(int) - 40).max() < 6 and not remarks["unreadable"]
        compared += 1
    assert compared > 3


@pytest.mark.parametrize("name, settings", [("a.png", {}), ("a.webp", {}), ("a.jpg", {}), ("b.jpg", {"dpi": (72, 72)})])
def test_damaged_exif_data_do_not_cost_the_image(tmp_path, name, settings):
    image = Image.fromarray(np.full((30, 40, 3), 90, np.uint8))
    image.save(tmp_path / name, exif=b"Exif\0\0garbage!", **settings)
    pixels, remarks = decode(unlabelled([tmp_path / name]), Preprocessing(8), [0])
    assert not remarks["unreadable"] and np.abs(pixels[0].astype(int) - 90).max() < 4


def test_a_turned_photograph_with_exif_data_that_pillow_cannot_write_is_turned(tmp_path):
    """Its resolution is a text. Pillow writes all EXIF data again when it turns an image."""
    rows = np.arange(240, dtype=np.uint8)[:, None, None].repeat(240, 1).repeat(3, 2)
    tags = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHI4s", 0x011A, 2, 4, b"72\0\0")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + tags + bytes(4)
    Image.fromarray(rows).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels, remarks = decode(unlabelled([tmp_path / "a.jpg"]), Preprocessing(240), [0])
    assert not remarks["unreadable"]
    assert np.abs(pixels[0].astype(int) - np.rot90(rows, -1)).max() < 4


def test_an_image_of_too_many_pixels_is_told_without_talk_of_attacks(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 20000 20000 255\n")
    _, remarks = decode(unlabelled([tmp_path / "a.pgm"]), Preprocessing(8), [0])
    assert remarks["unreadable"][0].endswith("exceeds limit of 178956970 pixels; make it smaller")


def test_an_empty_file_is_told(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    images = Folder(tmp_path).list_images(FileDigests())
    assert decode(images, Preprocessing(8), [0, 1])[1]["unreadable"] == dict.fromkeys(
        (0, 1), "ValueError: the file is empty"
    )


def test_a_bitmap_in_plain_text(tmp_path):
    (tmp_path / "a.pbm").write_bytes(b"P1\n2 2\n1 0\n0 1\n")
    pixels, remarks = decode(unlabelled([tmp_path / "a.pbm"]), Preprocessing(2), [0])
    assert not remarks["unreadable"] and pixels[0, :, :, 0].tolist() == [[0, 255], [255, 0]]


def test_an_image_in_memory_has_one_frame():
    assert count_frames(Image.new("L", (2, 2))) == 1
