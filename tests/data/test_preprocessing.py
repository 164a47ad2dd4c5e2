import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.decode import decode
from transfer_learning.data.files import Images
from transfer_learning.errors import UserError


def decoded(path, size, interpolation="nearest", digest="digest"):
    """The (size, size, 3) pixels of one file, or why there are none."""
    images = Images([str(path)], np.zeros(1, dtype=np.int64), ("a", "b"), [digest], read=lambda index: Image.open(path))
    pixels, reasons = decode(images, size, interpolation, [0])
    return reasons.get(0, pixels[0])


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "mode, suffix", [("L", "png"), ("1", "png"), ("P", "gif"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "tif")]
)
def test_every_kind_of_colour_becomes_rgb(tmp_path, picture, mode, suffix):
    path = tmp_path / f"picture.{suffix}"
    picture.convert(mode).save(path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(path, 24), expected)


def test_an_animation_is_its_first_picture(tmp_path, picture):
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


def test_one_pixel_is_stretched(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "pixel.png")
    assert np.array_equal(decoded(tmp_path / "pixel.png", 24, "bilinear"), np.full((24, 24, 3), (1, 2, 3)))


def test_a_picture_of_900_million_pixels_is_refused_before_it_is_loaded(tmp_path, picture):
    picture.save(tmp_path / "huge.png")
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = struct.pack(">II", 30_000, 30_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))  # so that only the size is wrong with it
    (tmp_path / "huge.png").write_bytes(content)
    assert "DecompressionBombError" in decoded(tmp_path / "huge.png", 24)


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    ramp = np.linspace(0, 65535, 24 * 24).astype(np.uint16).reshape(24, 24)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.array_equal(decoded(tmp_path / "deep.png", 24)[..., 1], ramp // 256)


def test_an_image_from_a_turned_camera_is_upright(tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to see it upright"
    picture.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decoded(tmp_path / "turned.png", 24), picture.transpose(Image.Transpose.ROTATE_270))


def test_bilinear_is_antialiased_and_nearest_takes_single_pixels(tmp_path):
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    assert np.abs(decoded(tmp_path / "stripes.png", 8, "bilinear").astype(int)[:, 1:-1] - 100).max() <= 2
    assert set(np.unique(decoded(tmp_path / "stripes.png", 8))) <= {0, 200}


@pytest.mark.parametrize(
    "damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"just a text"]
)
def test_a_broken_file_is_black_and_its_reason_told(tmp_path, picture, damage):
    picture.save(tmp_path / "whole.png")
    path = tmp_path / "broken.png"
    path.write_bytes(damage((tmp_path / "whole.png").read_bytes()))
    assert isinstance(decoded(path, 24), str)


def test_a_file_that_vanishes_is_no_broken_image(tmp_path):
    """What was read of it when it was listed would be stored as black for ever."""
    with pytest.raises(UserError, match="gone.png: gone since it was listed .*FileNotFoundError"):
        decoded(tmp_path / "gone.png", 24)
    assert "FileNotFoundError" in decoded(tmp_path / "gone.png", 24, digest="unreadable then too")
