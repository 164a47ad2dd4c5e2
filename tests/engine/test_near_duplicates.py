import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.engine.near_duplicates import Neighbours, Pairs, groups, near_duplicates, nearest, thumbnails

SIZE = 96


def compressed(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


COPIES = {
    "scaled": lambda image: image.resize((60, 60)),
    "much smaller": lambda image: image.resize((24, 24)),
    "recompressed": lambda image: compressed(image, 15),
    "mirrored": ImageOps.mirror,
    "mirrored, scaled and recompressed": lambda image: compressed(ImageOps.mirror(image).resize((70, 50)), 40),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.4),
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "noisy": lambda image: Image.fromarray(
        np.clip(image + np.random.default_rng(0).normal(0, 15, (400, 400, 3)), 0, 255).astype(np.uint8)
    ),
    "cut by two percent": lambda image: image.crop((8, 8, 392, 392)),
}


def pixels_of(images):
    return np.stack([np.asarray(image.convert("RGB").resize((SIZE, SIZE))) for image in images])


def all_neighbours(number):
    """As if all images were each other's neighbours."""
    indices = np.array([[j for j in range(number) if j != i] for i in range(number)])
    return Neighbours(indices, np.full(indices.shape, 0.5, np.float32))


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found_and_other_images_are_not(how):
    originals = [cartoon(n % 2, f"audit {n}") for n in range(12)]
    images = [*originals, *(COPIES[how](original) for original in originals)]
    found = near_duplicates(all_neighbours(24), thumbnails(pixels_of(images), np.arange(24)))
    assert sorted(map(tuple, found.indices.tolist())) == [(n, n + 12) for n in range(12)]
    assert found.mirrored.all() if "mirrored" in how else not found.mirrored.any()


def test_images_of_one_colour_are_no_duplicates_of_each_other_or_of_others():
    images = [Image.new("RGB", (40, 40), colour) for colour in ("red", "red", "blue", "black")] + [cartoon(0, "a")]
    assert not len(near_duplicates(all_neighbours(5), thumbnails(pixels_of(images), np.arange(5))).indices)


def test_pixels_that_agree_are_no_duplicates_where_features_differ():
    small = thumbnails(pixels_of([cartoon(0, "a")] * 3), np.arange(3))
    neighbours = Neighbours(np.array([[1], [0], [1]]), np.array([[0.9], [0.9], [0.8]], np.float32))
    found = near_duplicates(neighbours, small)
    assert found.indices.tolist() == [[0, 1], [1, 2]]  # the largest cosine first, each pair once
    np.testing.assert_allclose(found.cosines, [0.9, 0.8])


@pytest.mark.parametrize("number, block", [(1, 4), (2, 1), (7, 3), (30, 64)])
def test_nearest_equals_a_plain_loop(number, block, monkeypatch):
    monkeypatch.setattr("transfer_learning.engine.near_duplicates.BLOCK", block)
    features = np.random.default_rng(number).random((number, 9), dtype=np.float32)
    features[0] = 0  # a zero vector has cosine 0 with all others
    found = nearest(features, 5)
    assert found.indices.shape == found.cosines.shape == (number, min(5, number - 1))
    for row in range(number):
        cosines = {}
        for other in set(range(number)) - {row}:
            lengths = np.linalg.norm(features[row]) * np.linalg.norm(features[other])
            cosines[other] = features[row] @ features[other] / lengths if lengths else 0.0
        expected = sorted(cosines.values(), reverse=True)[:5]
        np.testing.assert_allclose(found.cosines[row], expected, atol=1e-6)
        np.testing.assert_allclose([cosines[other] for other in found.indices[row]], expected, atol=1e-6)


def test_thumbnails_are_means_over_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    expected = pixels.reshape(5, 16, 4, 16, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(thumbnails(pixels, np.array([3, 0])), expected[[3, 0]], atol=1)


def test_groups_join_what_pairs_and_names_join():
    pairs = Pairs(np.array([[0, 1], [1, 4]]), np.ones(2), np.zeros(2, bool))
    assert groups(pairs, 6).tolist() == [0, 0, 1, 2, 0, 3]
    assert groups(pairs, 6, ["a", "b", "c", "b", "d", "c"]).tolist() == [0, 0, 1, 0, 0, 1]
    none = Pairs(np.zeros((0, 2), int), np.ones(0), np.zeros(0, bool))
    assert groups(none, 3).tolist() == [0, 1, 2]
