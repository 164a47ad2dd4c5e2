"""Files are written byte by byte here: Pillow cannot write most of these kinds."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.depth import narrow, read_deep
from transfer_learning.data.formats import open_image
from transfer_learning.data.images import unlabelled
from transfer_learning.data.preprocessing import Preprocessing, decode

RNG = np.random.default_rng(0)
TWELVE = RNG.integers(0, 4096, (20, 30, 4))
SIGNED = RNG.integers(-1000, 3001, (20, 30))
SIGNED[0, :2] = -1000, 3000
TWELVE[0, 0], TWELVE[0, 1] = 0, 4095


def png(values, colour_type, interlaced=False):
    """A PNG with 16 bits per channel, (H, W, C)."""
    (height, width), rows = values.shape[:2], values.astype(">u2")
    if interlaced:  # Adam7: first row and column, row and column step of each of the seven images
        passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        parts = [rows[top::down, left::right] for top, left, down, right in passes]
    else:
        parts = [rows]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, interlaced)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for part in parts for row in part))
    chunks = [(b"IHDR", header), (b"IDAT", content), (b"IEND", b"")]
    coded = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def tiff(values, order="<", compressed=False, planar=False, photometric=None):
    """A TIFF with one strip for each plane: (H, W) or (H, W, C) of any dtype."""
    (height, width), channels = values.shape[:2], values.shape[2] if values.ndim == 3 else 1
    stored = values.astype(values.dtype.newbyteorder(order))
    planes = np.moveaxis(stored, -1, 0) if planar else [stored]
    strips = [zlib.compress(each.tobytes()) if compressed else each.tobytes() for each in planes]
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    photometric = photometric or {1: 1, 3: 2, 4: 5}[channels]
    tags = [(256, [width]), (257, [height]), (258, [values.itemsize * 8] * channels), (259, [8 if compressed else 1])]
    tags += [(262, [photometric]), (273, offsets[:-1]), (277, [channels]), (278, [height])]
    tags += [(279, [len(strip) for strip in strips]), (284, [1 + planar]), (339, [kind] * channels)]
    start = offsets[-1] + offsets[-1] % 2
    extra, entries, position = b"", b"", start + 2 + 12 * len(tags) + 4
    for tag, numbers in tags:
        short = tag in (258, 339)
        packed = struct.pack(f"{order}{len(numbers)}{'H' if short else 'I'}", *numbers)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(f"{order}I", position + len(extra))
        entries += struct.pack(f"{order}HHI", tag, 3 if short else 4, len(numbers)) + packed.ljust(4, b"\0")
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0) + extra
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return header + b"".join(strips).ljust(start - 8, b"\0") + directory


def netpbm(values, maximum, plain=False):
    magic = {2: "P5", 3: "P6"}[values.ndim] if not plain else "P2"
    header = f"{magic}\n{values.shape[1]} {values.shape[0]}\n{maximum}\n".encode()
    return header + (" ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes())


def deep(content):
    with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
        warnings.simplefilter("error")
        return read_deep(image)


GREY, COLOUR = TWELVE[..., 0].astype(np.uint16), TWELVE[..., :3].astype(np.uint16)
SIXTEEN, WIDE = [0, 65535], (TWELVE[..., 0].astype(np.uint32) << 20)
WHOLE = {  # content, values, full range
    "16-bit PNG": (png(TWELVE[..., :1], 0), GREY, SIXTEEN),
    "16-bit colour PNG": (png(TWELVE[..., :3], 2), COLOUR, SIXTEEN),
    "interlaced colour PNG": (png(TWELVE[..., :3], 2, True), COLOUR, SIXTEEN),
    "16-bit colour PNG with transparency": (png(TWELVE, 6), COLOUR, SIXTEEN),
    "16-bit grey PNG with transparency": (png(TWELVE[..., :2], 4), GREY, SIXTEEN),
    "16-bit TIFF": (tiff(GREY), GREY, SIXTEEN),
    "16-bit TIFF, compressed": (tiff(GREY, compressed=True), GREY, SIXTEEN),
    "16-bit TIFF, big-endian": (tiff(GREY, ">"), GREY, SIXTEEN),
    "16-bit TIFF, big-endian, compressed": (tiff(GREY, ">", True), GREY, SIXTEEN),
    "16-bit colour TIFF": (tiff(COLOUR), COLOUR, SIXTEEN),
    "16-bit colour TIFF, compressed": (tiff(COLOUR, compressed=True), COLOUR, SIXTEEN),
    "16-bit colour TIFF, big-endian": (tiff(COLOUR, ">"), COLOUR, SIXTEEN),
    "16-bit colour TIFF, big-endian, compressed": (tiff(COLOUR, ">", True), COLOUR, SIXTEEN),
    "16-bit colour TIFF with transparency": (tiff(TWELVE.astype("u2"), photometric=2), COLOUR, SIXTEEN),
    "signed 16-bit TIFF": (tiff(SIGNED.astype("i2")), SIGNED, [-32768, 32767]),
    "signed 16-bit TIFF, compressed": (tiff(SIGNED.astype("i2"), compressed=True), SIGNED, [-32768, 32767]),
    "signed 16-bit TIFF, big-endian": (tiff(SIGNED.astype("i2"), ">"), SIGNED, [-32768, 32767]),
    "32-bit TIFF": (tiff(WIDE), WIDE, [0, 2**32 - 1]),
    "32-bit TIFF, compressed": (tiff(WIDE, compressed=True), WIDE, [0, 2**32 - 1]),
    "signed 32-bit TIFF": (tiff(SIGNED.astype("i4")), SIGNED, [-(2**31), 2**31 - 1]),
    "signed 32-bit TIFF, big-endian": (tiff(SIGNED.astype("i4"), ">"), SIGNED, [-(2**31), 2**31 - 1]),
    "float TIFF": (tiff(SIGNED.astype("f4")), SIGNED, [0, 1]),
    "float TIFF, big-endian": (tiff(SIGNED.astype("f4"), ">"), SIGNED, [0, 1]),
    "PGM of 16 bits": (netpbm(GREY, 65535), GREY, SIXTEEN),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_values_and_ranges_are_those_of_the_file(kind):
    content, values, full = WHOLE[kind]
    found = deep(content)
    assert np.array_equal(found.values, values) and found.is_whole
    assert found.value_range == (values.min(), values.max(), *full)
    assert all(type(number) in (int, float) for number in found.value_range)


@pytest.mark.parametrize("plain", [False, True])
def test_netpbms_values_are_scaled_by_the_files_own_maximum(plain):
    found = deep(netpbm(GREY, 4095, plain))
    np.testing.assert_allclose(found.values, GREY * (65535 / 4095), atol=1)
    assert found.value_range == (0, 65535, 0, 65535)


COARSE = {  # content, colours
    "Netpbm": (netpbm(COLOUR, 65535), COLOUR),
    "TIFF in planes, compressed": (tiff(COLOUR, "<", True, planar=True), COLOUR),
    "TIFF in planes, big-endian, compressed": (tiff(COLOUR, ">", True, planar=True), COLOUR),
    "separated TIFF": (tiff(np.full((4, 4, 4), 4095, "u2")), np.full((4, 4, 3), 65535 - 2 * 4095)),
}


@pytest.mark.parametrize("kind", COARSE)
def test_of_some_kinds_only_the_upper_bits_are_known(kind):
    content, colours = COARSE[kind]
    found = deep(content)
    low, high, *full = found.value_range
    assert full == SIXTEEN and high - low < 65535 / 4 and not found.is_whole  # so that 12 bits are noticed
    np.testing.assert_allclose(found.values, colours, atol=512)
    np.testing.assert_allclose(found.as_bytes("dtype"), colours // 256, atol=2)
    with pytest.raises(ValueError, match="upper 8 of its 16 bits; for depth=image save it as PNG"):
        found.as_bytes("image")


@pytest.mark.parametrize(
    "content",
    [
        tiff(COLOUR, planar=True),
        tiff(COLOUR, ">", planar=True),
        tiff(SIGNED.astype("i2"), ">", True),
        tiff(SIGNED.astype("i4"), ">", True),
        tiff(SIGNED.astype("f4"), ">", True),
    ],
)
def test_files_that_pillow_misreads_are_refused(content):
    with pytest.raises(ValueError, match=r"wrong values from such a TIFF with (16|32) bits .*; save it as PNG"):
        deep(content)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("suffix", ["png", "tiff", "jpeg", "gif", "webp", "bmp", "ppm", "jp2"])
def test_eight_bits_are_no_deep_image(mode, suffix):
    file = io.BytesIO()
    try:
        Image.fromarray(COLOUR.astype(np.uint8)).convert(mode).save(file, suffix.replace("jp2", "jpeg2000"))
    except (OSError, ValueError):
        pytest.skip(f"{suffix} has no {mode}")
    assert deep(file.getvalue()) is None


def test_eight_bits_in_planes_and_five_bits_a_channel_are_no_deep_images():
    assert deep(tiff(COLOUR.astype(np.uint8), planar=True)) is None
    header = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 0, 8, 1, 1, 0, 0)  # "BGR;15"
    content = b"BM" + struct.pack("<IHHI", 62, 0, 0, 54) + header + bytes(8)
    assert deep(content) is None


@pytest.mark.parametrize("array", [GREY, SIGNED.astype(np.int32), SIGNED.astype(np.float32)])
def test_images_in_memory_have_the_range_of_their_type(array):
    found = read_deep(Image.fromarray(array))
    full = [0, 1] if array.dtype.kind == "f" else [np.iinfo(array.dtype).min, np.iinfo(array.dtype).max]
    assert np.array_equal(found.values, array) and found.value_range == (array.min(), array.max(), *full)


def test_dtype_maps_the_full_range_of_integers_in_equal_steps():
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(deep(png(ramp[..., None], 0)).as_bytes("dtype"), ramp // 256)
    signed = (np.arange(65536) - 32768).astype("i2").reshape(256, 256)
    assert np.array_equal(deep(tiff(signed)).as_bytes("dtype"), ramp // 256)
    rows = np.array([[0, 2**24 - 1, 2**24, 2**31, 2**32 - 1]], dtype=np.uint32)
    assert deep(tiff(rows)).as_bytes("dtype").tolist() == [[0, 0, 1, 128, 255]]
    rows = np.array([[-(2**31), -1, 0, 2**31 - 1]], dtype=np.int32)
    assert deep(tiff(rows)).as_bytes("dtype").tolist() == [[0, 127, 128, 255]]
    bits = "".join(f"{value:012b}" for value in range(4096))  # 12 bits a pixel, packed into 64 rows of 96 bytes
    packed = np.frombuffer(int(bits, 2).to_bytes(6144, "big"), np.uint8).reshape(64, 96)
    content = tiff(packed).replace(struct.pack("<HHII", 256, 4, 1, 96), struct.pack("<HHII", 256, 4, 1, 64))
    content = content.replace(struct.pack("<HHIHH", 258, 3, 1, 8, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0))
    found = deep(content)
    assert found.value_range == (0, 4095, 0, 4095)
    assert np.array_equal(found.as_bytes(None).ravel(), np.arange(4096) // 16)


def test_dtype_expects_floats_from_0_to_1():
    floats = np.array([[0, 0.25, 0.5, 0.999, 1]], dtype=np.float32)
    assert deep(tiff(floats)).as_bytes("dtype").tolist() == [[0, 64, 128, 255, 255]]
    for scale, low, high in ((255, "0", "255"), (-1000, "-1,000", "-0")):
        with pytest.raises(ValueError, match=f"values from {low} to {high}, expected 0 to 1; depth=image takes"):
            deep(tiff(floats * scale)).as_bytes("dtype")


@pytest.mark.parametrize("kind", [kind for kind in WHOLE if "float" not in kind])
def test_image_maps_each_images_own_range(kind):
    content, values, _ = WHOLE[kind]
    exact = (values.astype(float) - values.min()) / (float(values.max()) - values.min()) * 255
    found = deep(content).as_bytes("image")
    assert found.min() == 0 and found.max() == 255 and found.dtype == np.uint8
    np.testing.assert_allclose(found, exact, atol=1)


@pytest.mark.parametrize("scale, shift", [(1, 0), (255, 0), (4000, -1000), (1e-6, 0.5), (1e30, 0)])
def test_image_maps_floats_of_any_scale(scale, shift):
    stored = (RNG.random((20, 30)) * scale + shift).astype("f4")
    values = stored.astype(float)
    exact = (values - values.min()) / (values.max() - values.min()) * 255
    np.testing.assert_allclose(deep(tiff(stored)).as_bytes("image"), exact, atol=1)


@pytest.mark.parametrize("values", [np.full((4, 4), 7, np.uint16), np.zeros((4, 4), np.float32), COLOUR[:1, :1]])
def test_an_image_of_one_value_becomes_grey_and_not_black(values):
    constant = np.full_like(values, values.flat[0])
    content = png(constant, 2) if constant.ndim == 3 else tiff(constant)
    assert (deep(content).as_bytes("image") == 128).all()


@pytest.mark.parametrize("depth", ["dtype", "image"])
def test_values_that_are_no_finite_numbers_do_not_count(depth):
    values = np.array([[0, 0.5, 1, np.nan, np.inf, -np.inf]], dtype=np.float32)
    found = deep(tiff(values))
    assert found.value_range == (0, 1, 0, 1) and found.as_bytes(depth).tolist() == [[0, 128, 255, 0, 255, 0]]
    with pytest.raises(ValueError, match="none of its values is a finite number"):
        deep(tiff(values[:, 3:]))


@pytest.mark.parametrize("colour_type, channels", [(2, 3), (6, 4), (4, 2)])
def test_a_damaged_colour_png_is_an_error(colour_type, channels):
    complete = png(TWELVE[..., :channels], colour_type)
    for content in (complete[: len(complete) // 2], complete[:600] + bytes(60) + complete[660:]):
        with pytest.raises((RuntimeError, OSError, SyntaxError)):
            deep(content)


@pytest.mark.parametrize("kind", ["16-bit colour PNG", "16-bit grey PNG with transparency", "16-bit colour TIFF"])
def test_an_opened_image_is_read_whole_and_stays_open(tmp_path, kind):
    content, values, _ = WHOLE[kind]
    (tmp_path / "deep").write_bytes(content)
    with Image.open(tmp_path / "deep") as opened, Image.open(io.BytesIO(content)) as from_memory:
        for _ in range(2):
            images = unlabelled([tmp_path / "deep", opened, from_memory])
            pixels, remarks = decode(images, Preprocessing(16, depth="image"), range(3))
            assert np.array_equal(pixels[0], pixels[1]) and np.array_equal(pixels[0], pixels[2]) and pixels.max() > 200
            assert remarks["range"] == {n: [values.min(), values.max(), *SIXTEEN] for n in range(3)}
        upper = np.asarray(opened)[..., : values.shape[-1] if values.ndim == 3 else 1]
        assert np.array_equal(upper.squeeze(), values // 256)


SMALL, LARGE = [0, 4095, 0, 65535], [0, 65000, 0, 65535]


@pytest.mark.parametrize(
    "ranges, together, apart",
    [
        ({}, None, None),
        ({"a": LARGE}, None, None),
        ({"a": SMALL}, "a: values from 0 to 4,095, where the full range is 0 to 65,535", "a: values from 0 to 4,095"),
        ({"a": [5, 4000, 0, 65535], "b": [3, 900, 0, 65535]}, "2 images such as a: values from 3 to 4,000", "2 images"),
        ({"a": SMALL, "b": LARGE}, None, "a: values from 0 to 4,095"),
        ({"a": [0, 9000, 0, 65535], "b": [60000, 65535, 0, 65535]}, None, "2 images such as a: values from 0 to 9,000"),
        ({"a": [0, 16383, 0, 65535]}, "a: values from 0 to 16,383", "a"),  # 14 bits
        ({"a": [0, 16384, 0, 65535]}, None, None),
        ({"a": LARGE, "f": [0.0, 0.2, 0, 1]}, "f: values from 0 to 0.2, where the full range is 0 to 1", "f"),
        ({"f": [-1000.0, 3000.0, 0, 1]}, "f: values from -1,000 to 3,000, where the full range is 0 to 1", "f"),
        ({"f": [0.0, 1.5, 0, 1], "g": [0.0, 1.0, 0, 1]}, "2 images such as f: values from 0 to 1.5", "f: values"),
        ({"f": [0.0, 0.0, 0, 1]}, "f: values from 0 to 0", "f"),
    ],
)
def test_narrow_ranges_are_named_for_all_images_of_a_type_or_for_each(ranges, together, apart):
    for expected, is_together in ((together, True), (apart, False)):
        found = narrow(ranges, is_together)
        assert (found is None) if expected is None else found.startswith(expected)


@pytest.mark.parametrize("bits, kind", [(16, ">i2"), (32, ">i4"), (-32, ">f4")])
def test_fits_images_of_more_than_8_bits_are_refused(bits, kind):
    """Pillow 11 reads their bytes in the wrong order, Pillow 13 ignores BZERO."""
    cards = {"SIMPLE": "T", "BITPIX": bits, "NAXIS": 2, "NAXIS1": 2, "NAXIS2": 1, "BZERO": 32768}
    header = "".join(f"{key:8}= {value:>20}".ljust(80) for key, value in cards.items()) + "END".ljust(80)
    values = np.array([[100, 7232]]).astype(kind).tobytes()
    file = io.BytesIO(header.ljust(2880).encode() + values.ljust(2880, b"\0"))
    with pytest.raises(ValueError, match="wrong values from FITS images .*; save it as TIFF"):
        read_deep(open_image(file))
