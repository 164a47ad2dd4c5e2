"""Near-duplicates: images that are close in feature space and whose pixels agree.

Features are not centred: after a ReLU, images unlike all others then have small cosines with them, which outliers need.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from transfer_learning.utilities.cores import usable_cores

NEIGHBOURS = 10  # of each image that are compared
BLOCK = 1024  # images whose cosines with all others are held in memory at once
SIDE = 16  # pixels of a thumbnail
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # as Pillow weighs colours for a grey image
SAME_PIXELS = 0.95  # the correlation of two thumbnails from which images are near-duplicates


class Neighbours(NamedTuple):
    """The K nearest other images of each of N images, the nearest first."""

    indices: np.ndarray  # (N, K) int64
    cosines: np.ndarray  # (N, K) float32 in [-1, 1]


class Pairs(NamedTuple):
    """P pairs of near-duplicates, the largest cosine first."""

    indices: np.ndarray  # (P, 2) int64, the smaller index first
    cosines: np.ndarray  # (P,) float32
    mirrored: np.ndarray  # (P,) bool: whether one is the other's mirror image


def nearest(features: np.ndarray, number: int = NEIGHBOURS) -> Neighbours:
    """The nearest images by the cosine of features, (N, D) float; K is `number`, at most N - 1."""
    units = _units(features.astype(np.float32))
    number = min(number, len(units) - 1)
    found = []
    for start in range(0, len(units), BLOCK):
        cosines = units[start : start + BLOCK] @ units.T
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf  # not an image's own neighbour
        indices = np.argpartition(-cosines, max(number - 1, 0), axis=1)[:, :number]
        order = np.argsort(-np.take_along_axis(cosines, indices, axis=1), axis=1, kind="stable")
        indices = np.take_along_axis(indices, order, axis=1)
        found.append((indices, np.take_along_axis(cosines, indices, axis=1)))
    return Neighbours(*(np.concatenate(column) for column in zip(*found)))


def thumbnails(pixels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Of the images at (N,) indices of pixels (M, H, W, 3) uint8: (N, 16, 16, 3) uint8, means over areas."""
    small = np.empty((len(indices), SIDE, SIDE, 3), dtype=np.uint8)

    def shrink(row: int) -> None:
        image = Image.fromarray(pixels[indices[row]]).resize((SIDE, SIDE), Image.Resampling.BOX)
        small[row] = np.asarray(image)

    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(shrink, range(len(indices))))
    return small


def near_duplicates(neighbours: Neighbours, small: np.ndarray) -> Pairs:
    """Neighbours whose grey thumbnails, from (N, 16, 16, 3) uint8, correlate by 0.95 or more, as they are or mirrored.

    Correlation ignores brightness and contrast. An image of one colour has no near-duplicates.
    """
    grey = small @ LUMA
    as_is, mirrored = (
        _units(each - each.mean(axis=1, keepdims=True)) for each in (_flat(grey), _flat(grey[:, :, ::-1]))
    )
    found: dict[tuple[int, int], tuple[float, bool]] = {}
    for indices, cosines in zip(neighbours.indices.T, neighbours.cosines.T):
        same, turned = ((as_is * each[indices]).sum(axis=1) for each in (as_is, mirrored))
        for row in np.flatnonzero(np.maximum(same, turned) >= SAME_PIXELS):
            pair = sorted((int(row), int(indices[row])))
            found[pair[0], pair[1]] = float(cosines[row]), bool(turned[row] > same[row])
    pairs = sorted(found, key=lambda pair: (-found[pair][0], pair))
    cosines, is_mirrored = (np.array([found[pair][n] for pair in pairs]) for n in (0, 1))
    return Pairs(np.array(pairs, dtype=np.int64).reshape(-1, 2), cosines.astype(np.float32), is_mirrored.astype(bool))


def groups(pairs: Pairs, number: int, names: Sequence[str] | None = None) -> np.ndarray:
    """The group of each of N images, (N,) int: images that pairs join are in one, and those whose `names` are equal."""
    edges = pairs.indices
    if names:
        _, first, same = np.unique(names, return_index=True, return_inverse=True)
        edges = np.concatenate([edges, np.stack([np.arange(number), first[same]], axis=1)])
    graph = coo_array((np.ones(len(edges), dtype=np.int8), tuple(edges.T)), shape=(number, number))
    return connected_components(graph, directed=False)[1]


def _units(rows: np.ndarray) -> np.ndarray:
    """(N, D) -> rows of length 1; those of zeros stay zeros."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 1e-6, lengths, 1)


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)
