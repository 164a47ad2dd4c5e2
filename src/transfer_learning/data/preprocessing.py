"""From an image file of any format and size to the pixels that a network gets."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import Field

from transfer_learning.data.digests import UNREADABLE
from transfer_learning.data.images import Images
from transfer_learning.utilities.errors import UserError, first_line
from transfer_learning.utilities.validation import validated


@validated
@dataclass(frozen=True)
class Preprocessing:
    """Turns an image into a square of pixels. Training and prediction use the same object: checkpoints hold it.

    Args:
        image_size: side of the square in pixels.
        interpolation: Pillow's; "bilinear" and "bicubic" are antialiased.
        resize: "stretch" ignores the aspect ratio, "crop" keeps the centre, "pad" adds black bars.
    """

    image_size: Annotated[int, Field(ge=1, le=16384)] = 150
    interpolation: Literal["bilinear", "bicubic", "nearest"] = "bilinear"
    resize: Literal["stretch", "crop", "pad"] = "stretch"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Rotates an image upright, as its EXIF data say, and resizes it: (image_size, image_size, 3) uint8, RGB."""
        if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would clip to 8
            image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
        if "transparency" in image.info:  # Pillow warns if a palette loses its transparency in one step
            image = image.convert("RGBA")
        resize: Any = {"stretch": Image.Image.resize, "crop": ImageOps.fit, "pad": ImageOps.pad}[self.resize]
        method = Image.Resampling[self.interpolation.upper()]
        return np.array(resize(ImageOps.exif_transpose(image).convert("RGB"), (self.image_size,) * 2, method))


def decode(images: Images, preprocessing: Preprocessing, indices: Sequence[int]) -> tuple[np.ndarray, dict[int, str]]:
    """Reads and preprocesses images.

    Returns:
        pixels, (N, image_size, image_size, 3) uint8, and the position of each unreadable image, which is black, -> the
        reason.

    Raises:
        UserError: a file could be read when it was listed, but not now.
    """
    pixels, reasons = np.zeros((len(indices), *(preprocessing.image_size,) * 2, 3), dtype=np.uint8), {}

    def decode_one(position: int) -> None:
        index = indices[position]
        try:
            with images.read(index) as image:
                pixels[position] = preprocessing(image)
        except Exception as error:  # decoders raise many kinds of errors for a broken file
            if getattr(error, "errno", None) and not images.digests[index].startswith(UNREADABLE):
                reason = f"disappeared after it was listed ({first_line(error)}). Run it again."
                raise UserError(f"{images.names[index]}: {reason}") from error
            reasons[position] = first_line(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release the GIL
        list(pool.map(decode_one, range(len(indices))))
    return pixels, reasons
