"""Images with the same bytes."""

from transfer_learning.data.images import Images
from transfer_learning.data.splits import SPLITS


def duplicates(images: Images, keep_splits: bool = False) -> dict[int, tuple[str, int]]:
    """The images to leave out because others have the same bytes: index -> (the reason, the other image).

    Of equal images one is kept, none if their classes differ. With `keep_splits`, all images of the test and of the
    validation split stay, except validation images that are also test images; the training images go.
    """
    order = {split: number for number, split in enumerate(SPLITS)}
    splits = [split or "train" for split in (keep_splits and images.splits) or [None] * len(images.names)]
    of_content: dict[str, list[int]] = {}
    for index, digest in enumerate(images.digests):
        of_content.setdefault(digest, []).append(index)
    found = {}
    for members in (each for each in of_content.values() if len(each) > 1):
        kept = max(members, key=lambda index: order[splits[index]])
        rivals = {images.labels[index] for index in members if splits[index] == splits[kept]}
        for index in members:
            if splits[index] != splits[kept]:
                found[index] = f"the same bytes as a {splits[kept]} image", kept
            elif splits[kept] == "train" and len(rivals) > 1:
                other = next(each for each in members if images.labels[each] != images.labels[index])
                found[index] = "the same bytes as an image of another class", other
            elif splits[kept] == "train" and index != kept:
                found[index] = "the same bytes as another image", kept
    return dict(sorted(found.items()))
