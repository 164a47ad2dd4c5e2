import numpy as np
import pytest
from PIL import Image

from transfer_learning.data.images import unlabelled
from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.engine.near_duplicates import nearest, thumbnails
from transfer_learning.engine.unusual_images import (
    Header,
    flat_dark_or_bright,
    odd_sizes,
    outliers,
    read_headers,
    summary,
)


def scene(brightness, contrast):
    """A gradient from left to right around a brightness."""
    values = np.clip(brightness + contrast * np.linspace(-1, 1, 48), 0, 255)
    return np.broadcast_to(values[None, :, None], (48, 48, 3)).astype(np.uint8)


def one_colour(*colour, noise=0):
    pixels = np.full((48, 48, 3), colour) + np.random.default_rng(0).normal(0, noise, (48, 48, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "pixels, kind",
    [
        (one_colour(0, 0, 0), "one colour"),
        (one_colour(255, 255, 255), "one colour"),
        (one_colour(200, 30, 90, noise=6), "one colour"),  # as JPEG leaves it
        (scene(20, 20), "dark"),
        (scene(235, 20), "bright"),
        (scene(128, 100), None),
        (scene(60, 60), None),
        (np.asarray(cartoon(0, "a").resize((48, 48))), None),
        (np.concatenate([one_colour(220, 80, 90), one_colour(80, 150, 160)]), None),  # as bright, but two colours
    ],
)
def test_images_of_one_colour_and_dark_and_bright_ones(pixels, kind):
    square = np.asarray(Image.fromarray(pixels).resize((48, 48)))
    found = flat_dark_or_bright(thumbnails(square[None], np.arange(1)))
    assert {name for name, each in found.items() if len(each.indices)} == ({kind} - {None})


def test_unusable_images_come_in_order():
    pixels = np.stack([scene(30, 15), scene(128, 80), scene(10, 10), scene(240, 10), scene(220, 10)])
    found = flat_dark_or_bright(thumbnails(pixels, np.arange(5)))
    assert found["dark"].indices.tolist() == [2, 0] and found["bright"].indices.tolist() == [3, 4]
    assert found["dark"].scores[0] == pytest.approx(19, abs=2) and found["bright"].scores[0] == pytest.approx(
        231, abs=2
    )


def test_sizes():
    sizes = [(200, 150), (30, 400), (37, 38), (38, 38), (900, 299), (900, 301), (1, 1)]
    found = odd_sizes([Header(*size, "RGB", "PNG") for size in sizes], image_size=150)
    assert found["small"].indices.tolist() == [6, 1, 2] and found["small"].scores.tolist() == [1, 30, 37]
    assert found["stretched"].indices.tolist() == [1, 4]
    np.testing.assert_allclose(found["stretched"].scores, [400 / 30, 900 / 299])


def test_images_unlike_all_others_are_outliers():
    generator = np.random.default_rng(0)
    features = np.abs(generator.normal(size=(200, 30))) * (np.arange(30) < 20)
    features[[17, 80]] = np.abs(generator.normal(size=(2, 30))) * (np.arange(30) >= 20)
    features[80] += 0.5
    found = outliers(nearest(features))
    assert found.indices[0] == 17 and set(found.indices[:2]) == {17, 80} and len(found.indices) < 10
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("number", [1, 2, 12])
def test_few_images_or_equal_ones_have_no_outliers(number):
    assert not len(outliers(nearest(np.ones((number, 4)))).indices)


def test_headers_are_read_without_decoding(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.gif"]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8))
    for path, mode in zip(paths, ("RGBA", "L", "P")):
        noise.convert(mode).save(path)
    paths[1].write_bytes(paths[1].read_bytes()[:-200])  # a header is enough
    headers = read_headers(unlabelled([*paths, np.zeros((8, 9, 3), np.uint8)]), np.array([3, 1, 0]))
    assert headers == [Header(9, 8, "RGB", "none"), Header(30, 20, "L", "JPEG"), Header(30, 20, "RGBA", "PNG")]
    assert summary(headers) == {
        "width": "9 to 30 pixels, median 30",
        "height": "8 to 20 pixels, median 20",
        "mode": "RGB 1, L 1, RGBA 1",
        "format": "none 1, JPEG 1, PNG 1",
    }
