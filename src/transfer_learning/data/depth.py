"""Images with more than 8 bits per channel: their values, the range of these, and how they become bytes."""

import io
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info

from transfer_learning.utilities.errors import ArgumentError

# Pillow's raw modes, which name what a file stores
RANGES = {"I;12": (0, 4095), "I;16S": (-32768, 32767), "I;16BS": (-32768, 32767)}  # of values, other than 0 to 65535
DEEP_COLOUR = "(LA?|RGB[AXa]?|CMYK);16([BLN])"  # of which Pillow keeps the upper byte
SWAPPED = ("I;16BS", "I;32BS", "F;32BF")  # which Pillow 13 swaps twice in compressed files
BITS_PER_SAMPLE, ORIENTATION, PLANES = 258, 274, 284  # TIFF's tags


class ValueRange(NamedTuple):
    """The lowest and the highest finite value of an image, and those that its type can have, for floats 0 and 1."""

    low: float
    high: float
    type_low: float
    type_high: float

    @property
    def is_inside_type(self) -> bool:
        return self.type_low <= self.low and self.high <= self.type_high

    @property
    def is_narrow(self) -> bool:
        """Whether the values use less than a quarter of the type's range."""
        return self.low > self.high - (self.type_high - self.type_low) / 4


class Deep(NamedTuple):
    """An image with more than 8 bits per channel, without its transparency."""

    values: np.ndarray  # (H, W) or (H, W, 3), integers or floats
    value_range: ValueRange
    is_whole: bool  # False: only the upper 8 bits of each value are known

    def as_bytes(self, depth: str | None) -> np.ndarray:
        """uint8 of the same shape, as `Preprocessing` says. Raises ValueError: `depth` does not allow it."""
        low, high, type_low, type_high = self.value_range
        if depth == "image":
            if not self.is_whole:
                raise ValueError("Pillow reads only the upper 8 of its 16 bits; for depth=image save it as PNG")
            start, width = low, high - low
        elif self.value_range.is_inside_type:
            start, width = type_low, type_high - type_low
            if self.values.dtype.kind != "f":
                width += 1  # the number of integers
        else:
            found = f"values from {low:,g} to {high:,g}, expected {type_low:,g} to {type_high:,g}"
            raise ValueError(f"{found}; depth=image takes each image's own range")
        if not width:
            return np.full_like(self.values, 128, dtype=np.uint8)
        exact: Any = self.values.astype(np.float32 if self.values.itemsize < 4 else np.float64)
        return np.nan_to_num((exact - start) / width * 256, nan=0, posinf=255).clip(0, 255).astype(np.uint8)


def read_deep(image: Image.Image) -> Deep | None:
    """Reads an image as PIL opens it; None if it has at most 8 bits per channel.

    Raises ValueError: Pillow would read wrong values, or none of them is finite.
    """
    codec, stored, maximum = _storage(image)
    is_grey, is_colour = image.mode[0] in "IF", is_deep_colour(image)
    tags: Any = getattr(image, "tag_v2", {}) if codec and image.format == "TIFF" else {}
    if tags.get(ORIENTATION, 1) > 4:  # rotated by 90 degrees: Pillow 13 garbles those that it maps into memory by name
        image.filename = ""  # type: ignore[attr-defined]
    bits = max(tags.get(BITS_PER_SAMPLE, (1,)))
    is_swapped = codec == "libtiff" and stored in SWAPPED and sys.byteorder == "little"
    if is_swapped or (bits > 8 and not is_grey and not is_colour):  # the latter: each channel in a plane of its own
        raise ValueError(f"Pillow reads wrong values from such a TIFF with {bits} bits per channel; save it as PNG")
    if image.format == "FITS" and is_grey:
        raise ValueError("Pillow reads wrong values from FITS images with more than 8 bits; save it as TIFF")
    is_whole = is_grey or (is_colour and bool(re.match("LA|RGB(?!a)", stored)) and tags.get(PLANES) != 2)
    if is_grey:
        values = np.asarray(image).view(np.uint32) if stored == "I;32N" else np.asarray(image)
    elif is_whole:
        values = _both_bytes(image, stored)
    elif is_colour or maximum > 255:
        values = np.asarray(image.convert("RGB")).astype(np.uint16) * 256
    else:
        return None
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("none of its values is a finite number")
    value_range = ValueRange(finite.min().item(), finite.max().item(), *_type_range(values.dtype, stored, maximum))
    return Deep(values, value_range, is_whole)


def _type_range(dtype: np.dtype, stored: str, maximum: int) -> tuple[int, int]:
    if dtype.kind == "f":
        return 0, 1
    if stored.startswith("I;1") or maximum:  # in memory they may have 32 bits; Pillow scales Netpbm's values to 16
        return RANGES.get(stored, (0, 65535))
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)


def _storage(image: Image.Image) -> tuple[str, str, int]:
    """How a file that is not yet loaded stores an image: Pillow's decoder, its raw mode, and Netpbm's maximum or 0."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return "", "", 0
    stored, *others = _arguments(tiles[0])
    return tiles[0].codec_name, str(stored), others[0] if others and tiles[0].codec_name.startswith("ppm") else 0


def _arguments(tile: Any) -> tuple:
    """Of Pillow's decoder; the first one is the raw mode."""
    return tile.args if isinstance(tile.args, tuple) and tile.args else (tile.args,)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether it is a file with 16 bits in each of several channels that is not yet loaded."""
    return bool(re.fullmatch(DEEP_COLOUR, _storage(image)[1]))


def reopened(image: Any) -> Any:
    """The file of an image that is not yet loaded, opened again, at the same frame."""
    position = image.fp.tell()
    image.fp.seek(0)
    again = Image.open(io.BytesIO(image.fp.read()))
    image.fp.seek(position)
    again.seek(image.tell())
    return again


def _both_bytes(image: Image.Image, stored: str) -> np.ndarray:
    """(H, W) or (H, W, 3) uint16, without transparency.

    Pillow keeps the upper byte of each value; reading with swapped byte order yields the lower one.
    """

    def read(raw_mode: str) -> np.ndarray:
        with reopened(image) as again:
            again.tile = [tile._replace(args=(raw_mode, *_arguments(tile)[1:])) for tile in again.tile]
            again.load()
            return np.asarray(again).astype(np.uint16)

    if stored == "LA;16B":
        grey = read("RGBA")  # all four bytes as they are
        return grey[..., 0] * 256 + grey[..., 1]
    other = "L" if stored[-1] == "B" or (stored[-1] == "N" and sys.byteorder == "big") else "B"
    return (read(stored) * 256 + read(stored[:-1] + other))[..., :3]


def narrow(ranges: Mapping[str, Sequence[float]], together: bool) -> str | None:
    """Says which images use less than a quarter of their type's range, or values outside it; None if none do.

    Args:
        ranges: the name of each image with more than 8 bits per channel -> the numbers of its `ValueRange`.
        together: whether to look at the range of all images of a type, not at each image's own.
    """
    every = {name: ValueRange(*each) for name, each in ranges.items()}
    for type_range in dict.fromkeys((each.type_low, each.type_high) for each in every.values()):
        of_type = {name: each for name, each in every.items() if (each.type_low, each.type_high) == type_range}
        if together:
            lowest, highest = min(each.low for each in of_type.values()), max(each.high for each in of_type.values())
            of_type = dict.fromkeys(of_type, ValueRange(lowest, highest, *type_range))
        found = [name for name, each in of_type.items() if each.is_narrow or not each.is_inside_type]
        if found:
            first, more = of_type[found[0]], f"{len(found):,} images such as " if len(found) > 1 else ""
            full = f"where the full range is {first.type_low:,g} to {first.type_high:,g}"
            return f"{more}{found[0]}: values from {first.low:,g} to {first.high:,g}, {full}"
    return None


def check_ranges(names: Sequence[str], ranges: Mapping[int, Sequence[float]]) -> None:
    """Checks images whose `depth` was not chosen: index into the names -> the numbers of its `ValueRange`.

    Logs single images that use less than a quarter of their type's range. Raises ArgumentError (`depth`) if that is
    true of all images of a type together.
    """
    named = {names[index]: each for index, each in sorted(ranges.items())}
    if wrong := narrow(named, together=True):
        ways = "depth=image, by which each image's own range becomes 0 to 255, or depth=dtype, the full range"
        raise ArgumentError("depth", None, f"{wrong}. Choose {ways}.")
    if dark := narrow(named, together=False):
        rank_zero_info(f"{dark}: dark or of little contrast, which depth=image would change")
