"""Image formats by the names of files."""

from mimetypes import guess_type
from pathlib import Path

from PIL import Image


def is_image_name(path: Path) -> bool:
    """Whether the file's name is that of an image in any format; reading it shows whether it is one."""
    return path.suffix.lower() in Image.registered_extensions() or (guess_type(path.name)[0] or "").startswith("image/")


def missing_plugin(path: Path) -> str | None:
    return None
