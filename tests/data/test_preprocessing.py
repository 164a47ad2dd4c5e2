import errno
import struct
import threading
import time
import zlib
from contextlib import nullcontext

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from transfer_learning.data.images import Images, unlabelled
from transfer_learning.data.preprocessing import Preprocessing, decode
from transfer_learning.utilities.errors import ArgumentError, UserError


def decoded(path, size, interpolation="nearest", digest="digest"):
    """The (size, size, 3) pixels of one file, or the reason why it is unreadable."""
    images = Images([str(path)], np.zeros(1, dtype=np.int64), ("a", "b"), [digest], read=lambda index: Image.open(path))
    pixels, remarks = decode(images, Preprocessing(size, interpolation), [0])
    reasons = remarks["unreadable"]
    assert not reasons or not pixels.any()  # black
    return reasons.get(0, pixels[0])


def random_image(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def soft_image(width, height):
    """Its contrast is so low that Pillow's bicubic does not clip between rows and columns."""
    return random_image(width, height).point(lambda value: 80 + value // 3)


def resized(image, height, width, interpolation):
    """An independent resizing: torch's, antialiased, on floats. (height, width, 3) float."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    mode = InterpolationMode(interpolation)
    return v2.functional.resize(tensor, [height, width], mode, antialias=True).permute(1, 2, 0).numpy()


@pytest.fixture
def picture():
    return random_image(24, 24)


@pytest.mark.parametrize(
    "mode, suffix", [("L", "png"), ("1", "png"), ("P", "gif"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "tif")]
)
def test_every_colour_mode_becomes_rgb(tmp_path, picture, mode, suffix):
    path = tmp_path / f"picture.{suffix}"
    picture.convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(path, 24), expected)


def test_the_first_frame_of_an_animation_is_taken(tmp_path, picture):
    others = [picture.transpose(Image.Transpose.ROTATE_90), picture.transpose(Image.Transpose.ROTATE_180)]
    picture.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    with Image.open(tmp_path / "moving.gif") as image:
        assert image.n_frames == 3
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(tmp_path / "moving.gif", 24), expected)


def test_a_palette_with_transparency_and_a_cmyk_photograph(tmp_path, picture, recwarn):
    palette = picture.convert("P")
    palette.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    assert np.array_equal(decoded(tmp_path / "palette.png", 24), np.asarray(palette.convert("RGB")))
    picture.convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    assert np.abs(decoded(tmp_path / "print.jpg", 24).astype(int) - np.asarray(picture)).mean() < 12  # JPEG's losses
    assert not recwarn.list


@pytest.mark.parametrize("resize, mode", [("stretch", "squash"), ("crop", "center")])
@pytest.mark.parametrize("crop_pct", [0.5, 0.875, 1.0])
def test_crop_is_that_of_timms_evaluation(resize, mode, crop_pct):
    """timm enlarges the image and cuts the border off; here the border is cut off first."""
    image = random_image(6, 4).resize((180, 120), Image.Resampling.BICUBIC)  # smooth
    plain = dict(mean=(0.0,) * 3, std=(1.0,) * 3)
    theirs = timm.data.create_transform(56, interpolation="bicubic", crop_pct=crop_pct, crop_mode=mode, **plain)
    expected = theirs(image).permute(1, 2, 0).numpy() * 255
    pixels = Preprocessing(56, "bicubic", resize, crop_pct=crop_pct)(image)
    assert np.abs(pixels - expected).mean() < 2.5 and np.abs(pixels - expected).max() < 16


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_an_image_of_one_pixel_is_enlarged(resize):
    pixels = Preprocessing(24, resize=resize, crop_pct=0.5)(Image.new("RGB", (1, 1), (1, 2, 3)))
    assert np.array_equal(pixels, np.full((24, 24, 3), (1, 2, 3)))


def test_a_picture_of_900_million_pixels_is_refused_before_it_is_loaded(tmp_path, picture):
    picture.save(tmp_path / "huge.png")
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # so that only its size is wrong
    (tmp_path / "huge.png").write_bytes(content)
    assert "DecompressionBombError" in decoded(tmp_path / "huge.png", 24)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    ramp = np.linspace(0, 65535, 24 * 24).astype(np.uint16).reshape(24, 24)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.array_equal(decoded(tmp_path / "deep.png", 24)[..., 1], ramp // 256)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "deflated.tiff"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_grey_images_of_any_depth_are_rotated_upright_too(tmp_path, dtype, suffix, orientation):
    if suffix == "png" and dtype in ("int32", "float32"):
        pytest.skip("PNG has no such type")
    bytes_ = np.random.default_rng(0).integers(0, 256, (24, 30))
    values = {"uint8": bytes_, "uint16": bytes_ * 256, "int32": (bytes_ - 128) * 2**24, "float32": (bytes_ + 0.5) / 256}
    exif = Image.Exif()
    exif[0x0112] = orientation
    compression = {"compression": "tiff_deflate"} if "deflated" in suffix else {}
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(values[dtype].astype(dtype)).save(path, exif=exif, **compression)
    rows = {1: bytes_, 3: bytes_[::-1, ::-1], 6: np.rot90(bytes_, -1), 7: bytes_[::-1, ::-1].T}[orientation]
    upright = Image.fromarray(rows.astype(np.uint8))
    for settings in (Preprocessing(16, "bicubic", "pad", "dtype"), Preprocessing(24, resize="crop", depth="dtype")):
        pixels, _ = decode(unlabelled([path]), settings, [0])
        assert np.array_equal(pixels[0], settings(upright))


@pytest.mark.parametrize("depth, expected", [(None, 15), ("dtype", 15), ("image", 255)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_twelve_bits_in_a_file_of_16_fill_the_range_with_depth_image(tmp_path, depth, expected, suffix):
    values = np.random.default_rng(0).integers(0, 4096, (24, 24)).astype(np.uint16)
    values[0, :2] = 0, 4095
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    images = unlabelled([tmp_path / f"deep.{suffix}"])
    pixels, remarks = decode(images, Preprocessing(24, "nearest", depth=depth), [0])
    assert (pixels.min(), pixels.max()) == (0, expected)
    assert remarks == {"unreadable": {}, "range": {0: [0, 4095, 0, 65535]}, "frames": {}}


def test_floats_outside_their_range_are_unreadable_and_their_range_is_known(tmp_path):
    Image.fromarray(np.array([[-1000, 3000]], dtype=np.float32)).save(tmp_path / "ct.tif")
    images = unlabelled([tmp_path / "ct.tif"])
    pixels, remarks = decode(images, Preprocessing(24), [0])
    assert "values from -1,000 to 3,000, expected 0 to 1; depth=image" in remarks["unreadable"][0]
    assert remarks["range"] == {0: [-1000, 3000, 0, 1]} and not pixels.any()
    pixels, remarks = decode(images, Preprocessing(24, depth="image"), [0])
    assert (pixels.min(), pixels.max()) == (0, 255) and not remarks["unreadable"]


@pytest.mark.parametrize("digest, is_listed", [("digest", True), ("unreadable", False)])
def test_too_little_memory_stops_where_a_failure_would_be_stored(digest, is_listed):
    """Predictions go on with the other images."""

    def read(index):
        raise MemoryError

    images = Images(["huge.png"], np.zeros(1, dtype=np.int64), ("a", "b"), [digest], read)
    if is_listed:
        with pytest.raises(UserError, match=r"huge.png: not enough memory to decode it \(MemoryError"):
            decode(images, Preprocessing(4), [0])
    else:
        assert "MemoryError" in decode(images, Preprocessing(4), [0])[1]["unreadable"][0]


def test_an_image_is_rotated_upright_as_its_exif_data_say(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "turned.png", 24), picture.transpose(Image.Transpose.ROTATE_270))


def test_bilinear_is_antialiased_and_nearest_takes_single_pixels(tmp_path):
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert np.abs(decoded(tmp_path / "stripes.png", 8, "bilinear").astype(int)[:, 1:-1] - 100).max() <= 2
    assert np.abs(decoded(tmp_path / "stripes.png", 8, "bicubic").astype(int)[:, 1:-1] - 100).max() <= 6
    assert set(np.unique(decoded(tmp_path / "stripes.png", 8))) <= {0, 200}


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width, height", [(40, 24), (24, 40), (30, 30), (7, 5)])
def test_stretched_images_are_torchs_antialiased_resizing(interpolation, width, height):
    image = soft_image(width, height)
    pixels = Preprocessing(12, interpolation)(image)
    assert pixels.shape == (12, 12, 3) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels, resized(image, 12, 12, interpolation), atol=1.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width, height", [(40, 24), (24, 40), (24, 24), (10, 6)])
def test_a_cropped_image_is_its_centre(interpolation, width, height):
    """As resizing the shorter side to 12 pixels and cropping the centre of the longer one, 20 pixels in three cases."""
    image = soft_image(width, height)
    shorter = min(width, height)
    rows, columns = height * 12 // shorter, width * 12 // shorter
    top, left = (rows - 12) // 2, (columns - 12) // 2
    expected = resized(image, rows, columns, interpolation)[top : top + 12, left : left + 12]
    np.testing.assert_allclose(Preprocessing(12, interpolation, "crop")(image), expected, atol=1.5)


def test_a_crop_of_full_size_has_the_very_pixels_of_the_centre():
    image = random_image(31, 17)
    assert np.array_equal(Preprocessing(17, resize="crop")(image), np.array(image)[:, 7:24])
    image = random_image(17, 31)
    assert np.array_equal(Preprocessing(17, "nearest", "crop")(image), np.array(image)[7:24])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("width, height", [(40, 24), (24, 40), (24, 24), (10, 6)])
def test_a_padded_image_is_complete_between_black_bars(interpolation, width, height):
    """As resizing the longer side to 20 pixels and adding zeros on both sides of the shorter one, 12 in three cases."""
    image = soft_image(width, height)
    longer = max(width, height)
    rows, columns = height * 20 // longer, width * 20 // longer
    top, left = (20 - rows) // 2, (20 - columns) // 2
    expected = np.zeros((20, 20, 3))
    expected[top : top + rows, left : left + columns] = resized(image, rows, columns, interpolation)
    pixels = Preprocessing(20, interpolation, "pad")(image)
    np.testing.assert_allclose(pixels, expected, atol=1.5)
    assert not pixels[expected.sum(axis=2) == 0].any()


@pytest.mark.parametrize("size", [(1, 100), (100, 1), (2, 9), (1, 1), (3, 70)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.1])
def test_an_image_of_any_shape_keeps_some_of_its_colour_or_is_refused(size, resize, crop_pct):
    too_narrow = resize == "pad" and crop_pct == 1 and 100 in size
    with pytest.raises(ValueError, match="pixels: nothing of the shorter side") if too_narrow else nullcontext():
        pixels = Preprocessing(32, resize=resize, crop_pct=crop_pct)(Image.new("RGB", size, (200, 9, 9)))
        assert (pixels == (200, 9, 9)).all(axis=2).any()


@pytest.mark.parametrize("resize", ["crop", "pad"])
def test_images_are_upright_before_they_are_cropped_or_padded(resize):
    image = random_image(40, 24)
    image.getexif()[0x0112] = 6
    upright = random_image(40, 24).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(Preprocessing(16, resize=resize)(image), Preprocessing(16, resize=resize)(upright))


def test_the_tutorials_preprocessing_is_the_default():
    assert Preprocessing() == Preprocessing(150, "bilinear", "stretch") != Preprocessing(150, "bilinear", "crop")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"image_size": 0}, "image_size=0: expected"),
        ({"image_size": 1.5}, "image_size=1.5: expected"),
        ({"interpolation": "cubic"}, "interpolation='cubic': expected .*'bicubic'"),
        ({"resize": "fit"}, "resize='fit': expected .*'pad'"),
        ({"depth": "16"}, "depth='16': expected .*'image'"),
        ({"size": 3}, "size=3: no such argument; expected one of image_size, interpolation, resize, depth"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ArgumentError, match=message):
        Preprocessing(**settings)


@pytest.mark.parametrize(
    "damage", [lambda complete: b"", lambda complete: complete[: len(complete) // 2], lambda complete: b"just a text"]
)
def test_a_broken_file_is_black_and_has_a_reason(tmp_path, picture, damage):
    picture.save(tmp_path / "complete.png")
    path = tmp_path / "broken.png"
    path.write_bytes(damage((tmp_path / "complete.png").read_bytes()))
    assert isinstance(decoded(path, 24), str)


def test_positions_of_unreadable_images_are_those_among_the_images_asked_for(tmp_path, picture):
    def read(index):
        if index == 5:
            raise ValueError("broken")
        return Image.new("RGB", (4, 4), (int(index), 0, 0))

    names = [f"image {index}" for index in range(8)]
    images = Images(names, np.zeros(8, dtype=np.int64), ("a", "b"), names, read)
    pixels, remarks = decode(images, Preprocessing(4), [7, 5, 2])
    assert pixels[:, 0, 0, 0].tolist() == [7, 0, 2]
    assert remarks == {"unreadable": {1: "ValueError: broken"}, "range": {}, "frames": {}}


def test_a_file_that_disappears_is_not_a_broken_image(tmp_path):
    """Otherwise it would be stored as black for ever."""
    with pytest.raises(UserError, match=r"gone.png: it cannot be read any more \(FileNotFoundError"):
        decoded(tmp_path / "gone.png", 24)
    assert "FileNotFoundError" in decoded(tmp_path / "gone.png", 24, digest="unreadable then too")


def test_an_error_of_the_system_is_not_taken_for_a_missing_file():
    def read(index):
        raise OSError(errno.EMFILE, "Too many open files")

    images = Images(["1.png"], np.zeros(1, dtype=np.int64), ("a", "b"), ["digest"], read)
    with pytest.raises(UserError, match=r"^1.png: it cannot be read any more \(OSError: .*Too many open files\)"):
        decode(images, Preprocessing(4), [0])


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr("transfer_learning.data.preprocessing.LARGE", 99)
    inside, most = [], []

    def resized(self, image, deep):
        if image.size == (10, 10):
            inside.append(0)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(Preprocessing, "resized", resized)
    monkeypatch.setattr("transfer_learning.data.preprocessing.usable_cores", lambda: 8)
    sizes = [(10, 10), (3, 3)] * 6
    listed = unlabelled([Image.new("1", size) for size in sizes])
    decode(listed, Preprocessing(2), range(12))
    assert most == [1] * 6


def test_remarks_are_in_the_order_of_the_images_whichever_is_decoded_first():
    later = threading.Event()

    def read(index):
        later.set() if index else later.wait(timeout=10)
        raise ValueError("broken")

    images = Images(["0.png", "1.png"], np.zeros(2, dtype=np.int64), ("a", "b"), ["0", "1"], read)
    _, remarks = decode(images, Preprocessing(8), [0, 1])
    assert list(remarks["unreadable"]) == [0, 1]
