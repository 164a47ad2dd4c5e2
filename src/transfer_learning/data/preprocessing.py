"""From an image file of any format and size to the pixels that a network gets."""

import math
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pydantic import Field

from transfer_learning.data.cache import CachedArray, Remarks
from transfer_learning.data.depth import Deep, check_ranges, read_deep
from transfer_learning.data.digests import UNREADABLE
from transfer_learning.data.formats import count_frames, keep_orientation_alone, missing_plugin, readable_formats
from transfer_learning.data.images import Images
from transfer_learning.data.summary import log_frames
from transfer_learning.utilities.cores import usable_cores
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.files import sha256_of
from transfer_learning.utilities.validation import PathArgument, validated

LARGE = 25_000_000  # pixels, which take up to 10 bytes each: larger images are decoded one at a time
ONE_AT_A_TIME = Lock()
UNKNOWN = "UnidentifiedImageError: in none of the formats that are read"


@validated
@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into a square of pixels. Training and prediction use the same object: checkpoints hold it.

    Args:
        image_size: side of the square in pixels.
        interpolation: Pillow's; "bilinear" and "bicubic" are antialiased.
        resize: "stretch" ignores the aspect ratio, "crop" keeps the centre, "pad" adds black bars.
        depth: which values of an image with more than 8 bits per channel become 0 to 255. "dtype": all that its type
            can have, 0 to 65535 of 16 bits; of floats [0, 1], so that floats of another scale, such as 0 to 255 or CT
            numbers, are errors. "image": its own minimum to maximum over all channels, so that images of different
            brightness become similar. Then one of a single value becomes 128. NaN becomes 0, an infinite value 0 or
            255. None is "dtype", and the data module stops if images use less than a quarter of their type's range.
        crop_pct: how much of each side is kept, at the centre, before anything else; the name is timm's, where 0.875
            means the same: the image is resized to 1 / 0.875 of the size, and the border is cut off.
    """

    image_size: Annotated[int, Field(ge=1, le=16384)] = 150
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    depth: Literal["dtype", "image"] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Rotates an image upright, as its EXIF data say, and resizes it: (image_size, image_size, 3) uint8, RGB.

        Raises ValueError: an image with more than 8 bits per channel that `depth` does not cover; one that is too
        narrow to be padded.
        """
        return self.resized(image, read_deep(image))

    def resized(self, image: Image.Image, deep: Deep | None) -> np.ndarray:
        """As `__call__`, where `deep` is what `read_deep` found in the image."""
        keep_orientation_alone(image)
        if deep:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            image = Image.fromarray(deep.as_bytes(self.depth))
            image.getexif()[ExifTags.Base.Orientation] = orientation
        if "transparency" in image.info:  # Pillow warns if a palette loses its transparency in one step
            image = image.convert("RGBA")
        resize: Any = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[self.resize]
        method = Image.Resampling[self.interpolation.upper()]
        image = ImageOps.exif_transpose(image).convert("RGB")
        border = tuple(min(round(side * (1 - self.crop_pct) / 2), (side - 1) // 2) for side in image.size)
        image = ImageOps.crop(image, border) if any(border) else image
        if self.resize == "pad" and round(self.image_size * min(image.size) / max(image.size)) < 1:
            raise ValueError(f"{image.width} x {image.height} pixels: nothing of the shorter side would be left")
        return np.array(resize(image, (self.image_size,) * 2, method))


def stored_pixels(
    images: Images,
    preprocessing: Preprocessing,
    folder: PathArgument,
    source: str = "",
    left_out: Collection[int] = (),
) -> tuple[np.ndarray, dict[int, str]]:
    """Decodes all M images, once: (M, image_size, image_size, 3) uint8 in a memory-mapped file of a folder.

    Returns the pixels, black for images that are not readable, and index -> the reason for those. `source` is what the
    list of cached arrays shows. Images that are `left_out`, by their index, need no `depth`.

    Raises UserError: as `decode`; as `check_ranges` without a `depth`; the folder cannot be written.
    """
    name = f"pixels-{preprocessing.image_size}-{preprocessing.interpolation}-{preprocessing.resize}"
    key = {"preprocessing": asdict(preprocessing), "images": sha256_of(list(images.digests))}
    key["formats"] = readable_formats()  # with another library, unreadable images may be readable
    about = f"{source}, such as {images.names[0]}"
    ids = [str(index) for index in range(len(images.names))]
    found = CachedArray(folder, name, key, about).get(ids, partial(decode, images, preprocessing))
    if preprocessing.depth is None:
        ranges = {index: each for index, each in found.remarks["range"].items() if index not in left_out}
        check_ranges(images.names, ranges)
    log_frames(images.names, found.remarks["frames"])
    return found.array, found.remarks["unreadable"]


def decode(images: Images, preprocessing: Preprocessing, indices: Sequence[int]) -> tuple[np.ndarray, Remarks]:
    """Reads and preprocesses images.

    Returns:
        pixels, (N, image_size, image_size, 3) uint8, and remarks on positions: "unreadable", the reason why an image is
        black; "range", the numbers of the `ValueRange` of one with more than 8 bits per channel; "frames", how many if
        more than one.

    Raises:
        UserError: a file changed after it was listed, or cannot be read any more; there is not enough memory.
    """
    pixels = np.zeros((len(indices), *(preprocessing.image_size,) * 2, 3), dtype=np.uint8)
    remarks: Remarks = {"unreadable": {}, "range": {}, "frames": {}}

    def decode_one(position: int) -> None:
        index = indices[position]
        try:
            with images.read(index) as image:
                memory_lock = ONE_AT_A_TIME if math.prod(image.size) > LARGE else nullcontext()
                with memory_lock:
                    deep = read_deep(image)
                    if deep:
                        remarks["range"][position] = list(deep.value_range)
                    pixels[position] = preprocessing.resized(image, deep)
                    frames = count_frames(image)
                    if frames > 1:
                        remarks["frames"][position] = frames
        except UserError:
            raise
        except Exception as error:  # decoders raise many kinds of errors for a broken file
            is_memory = isinstance(error, MemoryError)
            if (is_memory or getattr(error, "errno", None)) and not images.digests[index].startswith(UNREADABLE):
                what = "not enough memory to decode it" if is_memory else "it cannot be read any more"
                raise UserError(f"{images.names[index]}: {what} ({first_line(error)}). Run it again.") from error
            reason = first_line(error)
            if isinstance(error, UnidentifiedImageError):
                reason = missing_plugin(images.names[index]) or UNKNOWN
            if isinstance(error, Image.DecompressionBombError):
                reason = f"{reason.partition(',')[0]}; make it smaller"
            remarks["unreadable"][position] = reason

    with ThreadPoolExecutor(usable_cores()) as pool:  # of this process or container; decoders release the GIL
        list(pool.map(decode_one, range(len(indices))))
    return pixels, {kind: dict(sorted(found.items())) for kind, found in remarks.items()}  # threads end in any order
