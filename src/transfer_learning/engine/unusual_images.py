"""Unusual images: far from all others, of one colour, very dark or bright, very small, very wide or tall."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from transfer_learning.data.images import Images
from transfer_learning.engine.near_duplicates import Neighbours
from transfer_learning.utilities.cores import usable_cores

FAR = 3.5  # the modified z-score above which a value is an outlier (Iglewicz and Hoaglin 1993)
FLAT = 4  # of 255: the standard deviation of the colours below which an image is of one colour
DARK = 60  # of 255: the 95th percentile of the brightness below which an image is dark
BRIGHT = 200  # of 255: the 5th percentile of the brightness above which an image is bright
ENLARGEMENT = 4  # of a very small image to what the network gets
RATIO = 3  # of the sides of a very wide or tall image


class Header(NamedTuple):
    """What a file tells about its image before it is decoded."""

    width: int  # pixels
    height: int
    mode: str  # Pillow's: "RGB", "L" ...
    format: str  # "JPEG" ...; "none" for an image that is no file


class Unusual(NamedTuple):
    """Images that are unusual in one way, the most unusual first."""

    indices: np.ndarray  # (U,) int64
    scores: np.ndarray  # (U,) float


def outliers(neighbours: Neighbours) -> Unusual:
    """Images whose mean distance to their nearest images, 1 - cosine, has a modified z-score above 3.5: it is that many
    standard deviations, estimated from the median absolute deviation, above the median. The scores are the distances.
    """
    distances = 1 - neighbours.cosines.mean(axis=1) if neighbours.cosines.size else np.zeros(len(neighbours.cosines))
    median = np.median(distances)
    deviation = 1.4826 * np.median(np.abs(distances - median))  # of a normal distribution, the standard deviation
    is_far = (distances > median + FAR * deviation) & (deviation > 0)
    return _sorted(distances, is_far, descending=True)


def flat_dark_or_bright(thumbnails: np.ndarray) -> dict[str, Unusual]:
    """From thumbnails (N, h, w, 3) uint8.

    "one colour": the largest standard deviation of the three colours is below 4. Of other images, "dark": the 95th
    percentile of brightness is below 60, and "bright": its 5th percentile is above 200. The scores are these numbers.
    """
    colours = thumbnails.reshape(len(thumbnails), -1, 3).astype(np.float32)
    deviation, (low, high) = colours.std(axis=1).max(axis=1), np.percentile(colours.mean(axis=2), (5, 95), axis=1)
    flat = deviation < FLAT
    return {
        "one colour": _sorted(deviation, flat),
        "dark": _sorted(high, ~flat & (high < DARK)),
        "bright": _sorted(low, ~flat & (low > BRIGHT), descending=True),
    }


def odd_sizes(headers: Sequence[Header], image_size: int) -> dict[str, Unusual]:
    """From N headers, "small": the shorter side is less than a quarter of the `image_size` that a network gets, and
    "stretched": the longer side is more than three times the shorter one. The scores are the side and the ratio.
    """
    sides = np.array([(each.width, each.height) for each in headers], dtype=float).reshape(-1, 2)
    shorter, ratio = sides.min(axis=1), sides.max(axis=1) / sides.min(axis=1)
    return {
        "small": _sorted(shorter, shorter * ENLARGEMENT < image_size),
        "stretched": _sorted(ratio, ratio > RATIO, descending=True),
    }


def read_headers(images: Images, indices: np.ndarray) -> list[Header]:
    """The headers of the readable images at (N,) indices."""

    def read(index: int) -> Header:
        with images.read(index) as image:
            return Header(*image.size, image.mode, image.format or "none")

    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(read, indices))


def summary(headers: Sequence[Header]) -> dict[str, str]:
    """What N >= 1 headers have in common: widths, heights, modes and formats, with counts."""
    found = {}
    for name, values in (("width", [each.width for each in headers]), ("height", [each.height for each in headers])):
        found[name] = f"{min(values)} to {max(values)} pixels, median {np.median(values):.0f}"
    for name, texts in (("mode", [each.mode for each in headers]), ("format", [each.format for each in headers])):
        found[name] = ", ".join(f"{text} {count:,}" for text, count in Counter(texts).most_common())
    return found


def _sorted(scores: np.ndarray, is_found: np.ndarray, descending: bool = False) -> Unusual:
    """The images that were found, by their scores."""
    indices = np.flatnonzero(is_found)
    order = -scores[indices] if descending else scores[indices]
    indices = indices[np.argsort(order, kind="stable")]
    return Unusual(indices, scores[indices])
