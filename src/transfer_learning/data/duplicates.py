"""Images with the same bytes."""

import numpy as np

from transfer_learning.data.images import Images
from transfer_learning.data.splits import SPLITS


def duplicates(images: Images, indices: np.ndarray, keep_splits: bool = False) -> dict[int, tuple[str, str]]:
    """The images to leave out because others have the same bytes: index -> (the reason, the name of the other image).

    Of equal images one is kept, none if their classes differ. With `keep_splits`, all images of the test and of the
    validation split stay, except validation images that are also test images; the training images go.

    Args:
        images: all images.
        indices: those that may be used, (N,) int64.
    """
    order = {split: number for number, split in enumerate(SPLITS)}
    splits = [split or "train" for split in (keep_splits and images.splits) or [None] * len(images.names)]
    of_content: dict[str, list[int]] = {}
    for index in indices.tolist():
        of_content.setdefault(images.digests[index], []).append(index)
    found = {}
    for members in (each for each in of_content.values() if len(each) > 1):
        kept = max(members, key=lambda index: order[splits[index]])
        labels = {images.labels[index] for index in members if splits[index] == splits[kept]}
        for index in members:
            if splits[index] != splits[kept]:
                found[index] = f"the same bytes as a {splits[kept]} image", images.names[kept]
            elif splits[kept] == "train" and len(labels) > 1:
                other = next(each for each in members if images.labels[each] != images.labels[index])
                found[index] = "the same bytes as an image of another class", images.names[other]
            elif splits[kept] == "train" and index != kept:
                found[index] = "the same bytes as another image", images.names[kept]
    return dict(sorted(found.items()))
