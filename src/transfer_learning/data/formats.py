"""Which files are images by their names, and which library reads their format."""

from contextlib import suppress
from mimetypes import guess_type
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

with suppress(ImportError):  # the extra `formats`
    from pillow_heif import register_heif_opener

    register_heif_opener()

NEEDS = dict.fromkeys((".heic", ".heif", ".hif"), "pillow-heif: pip install -e '.[formats]'")
NEEDS |= {".avif": "a Pillow with AVIF: pip install --force-reinstall pillow"}  # some systems' own Pillow has none
# Pillow's names of the formats that are opened: none that starts another program (EPS: Ghostscript) or draws a document
FORMATS = {"AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "GIF", "HEIF", "ICNS", "ICO", "IM", "JPEG"}
FORMATS |= {"JPEG2000", "MPO", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF"}
FORMATS |= {"WEBP", "XBM", "XPM"}
NOT_AN_IMAGE = "not an image by its name"  # a reason to leave a file out


def is_image_name(path: Path) -> bool:
    """Whether the file's name is that of an image in any format; reading it shows whether it is one."""
    suffix = path.suffix.lower()
    if known := Image.registered_extensions().get(suffix):  # Pillow also knows documents, films and arrays
        return known in FORMATS
    return suffix in NEEDS or (suffix != ".svg" and (guess_type(path.name)[0] or "").startswith("image/"))


def missing_plugin(path: str | Path) -> str | None:
    """What is not installed, but needed to read a file with such a name; None if nothing is missing."""
    suffix = Path(path).suffix.lower()
    missing = suffix in NEEDS and suffix not in Image.registered_extensions()
    return f"needs {NEEDS[suffix]}" if missing else None


def readable_formats() -> list[str]:
    """Pillow's names of the formats that can be read here, sorted."""
    return sorted(FORMATS.intersection(Image.registered_extensions().values()))


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Opens an image, whatever its name says, if its format is among `FORMATS`. Raises as `PIL.Image.open`."""
    Image.init()
    return Image.open(file, formats=[each for each in Image.ID if each in FORMATS])


def keep_orientation_alone(image: Image.Image) -> None:
    """Loads an image, and drops its EXIF data but the orientation, so that odd or damaged ones do no harm.

    Pillow writes all EXIF data again when it rotates an image, and fails at some that it has read.
    """
    image.load()
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of several kinds, such as SyntaxError
        orientation = None
    kept = Image.Exif()
    kept[ExifTags.Base.Orientation] = orientation if orientation in range(1, 9) else 1
    image.info.pop("Raw profile type exif", None)
    image.info["exif"] = kept.tobytes()


def count_frames(image: Image.Image) -> int:
    """The number of frames (pages) of an opened file; those after a broken one do not count."""
    with suppress(Exception):  # decoders raise many kinds of errors; the first frame may be right
        return getattr(image, "n_frames", 1)
    return 1
