"""From an image, whatever its format, to pixels."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from transfer_learning.data.files import UNREADABLE, Images
from transfer_learning.errors import UserError, first_line

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}  # Pillow's bilinear is antialiased


def to_pixels(image: Image.Image, size: int, interpolation: str = "bilinear") -> np.ndarray:
    """Turns an image upright as its camera noted, and stretches it to a square: (size, size, 3) uint8, RGB.

    Args:
        size: side of the square in pixels.
        interpolation: a key of `INTERPOLATIONS`.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow would clip them to 8, not scale
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    if "transparency" in image.info:  # Pillow warns where it drops a palette's in one step
        image = image.convert("RGBA")
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.array(upright.resize((size, size), INTERPOLATIONS[interpolation]))


def decode(images: Images, size: int, interpolation: str, indices: Sequence[int]) -> tuple[np.ndarray, dict[int, str]]:
    """The images at N indices as pixels: (N, size, size, 3) uint8, and {position: why it could not be read, and is black}.

    Raises:
        UserError: a file that could be read when it was listed cannot be had now, which says nothing of the image.
    """
    pixels, reasons = np.zeros((len(indices), size, size, 3), dtype=np.uint8), {}

    def decode_one(position: int) -> None:
        try:
            with images.read(indices[position]) as image:
                pixels[position] = to_pixels(image, size, interpolation)
        except Exception as error:  # whatever a decoder raises on a broken file, the run goes on without it
            index = indices[position]
            if getattr(error, "errno", None) and not images.digests[index].startswith(
                UNREADABLE
            ):  # the system's, not the decoder's
                raise UserError(
                    f"{images.names[index]}: gone since it was listed ({first_line(error)}). Run the same again."
                ) from error
            reasons[position] = first_line(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release Python's lock
        list(pool.map(decode_one, range(len(indices))))
    return pixels, reasons
