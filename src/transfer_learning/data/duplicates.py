"""Images with the same bytes."""

import hashlib
from collections.abc import Collection

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.data.images import Images
from transfer_learning.data.splits import SPLITS
from transfer_learning.utilities.text import some

EMPTY = hashlib.sha256(b"").hexdigest()  # of a file without a byte, which is left out as unreadable


def duplicates(images: Images, indices: np.ndarray, kept_splits: Collection[str] = ()) -> dict[int, tuple[str, str]]:
    """The images to leave out because others have the same bytes: index -> (the reason, the name of the other image).

    Of equal images one is kept, none if their classes differ. All images of `kept_splits` stay, "val" or "test", except
    validation images that are also test images; the training images go.

    Args:
        images: all images.
        indices: those that may be used, (N,) int64.
    """
    given = images.splits or [None] * len(images.names)
    splits = [split if split in kept_splits else "train" for split in given]
    of_content: dict[str, list[int]] = {}
    for index in indices.tolist():
        if images.digests[index] != EMPTY:
            of_content.setdefault(images.digests[index], []).append(index)
    found, kept_copies = {}, list[str]()
    for members in of_content.values():
        kept = max(members, key=lambda index: SPLITS.index(splits[index]))
        labels = {images.labels[index] for index in members if splits[index] == splits[kept]}
        for index in members:
            if splits[index] != splits[kept]:
                found[index] = f"the same bytes as a {splits[kept]} image", images.names[kept]
            elif splits[kept] == "train" and len(labels) > 1:
                other = next(each for each in members if images.labels[each] != images.labels[index])
                found[index] = "the same bytes as an image of another class", images.names[other]
            elif splits[kept] == "train" and index != kept:
                found[index] = "the same bytes as another image", images.names[kept]
            elif index != kept:
                kept_copies.append(images.names[index])
    if kept_copies:
        reason = "given validation or test images have the same bytes as others of their split, and stay"
        rank_zero_info(f"{len(kept_copies):,} {reason}: {some(kept_copies)}")
    return dict(sorted(found.items()))
