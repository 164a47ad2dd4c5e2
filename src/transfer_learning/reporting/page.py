"""HTML pages that need no other file and no network."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from transfer_learning.reporting.prediction_table import PredictionTable
from transfer_learning.utilities.errors import first_line
from transfer_learning.utilities.files import write_text

WIDTH = 800  # pixels of an embedded picture, at most
MOST_CLASSES = 20  # of a confusion matrix as a table


def write_page(path: str | Path, content: Mapping[str, Any], template: str) -> None:
    """Writes a page atomically. `content`: variables of the template, which escapes texts. Raises OSError.

    `template` is a file in the folder of this module.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    write_text(path, environment.get_template(template).render(content))


def embedded(path: Path) -> str:
    """A picture as the address of an `img`: a small JPEG inside the page. Raises OSError if it is damaged."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:  # Pillow starts another program for some formats
            small = picture.convert("RGB").reduce(max(1, picture.width // WIDTH))
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of Pillow, for some damaged PNGs
        raise OSError(f"damaged ({first_line(error)})") from error
    small.thumbnail((WIDTH, 4 * WIDTH))
    return jpeg_address(small, quality=70)


def jpeg_address(picture: Image.Image, quality: int) -> str:
    """An RGB picture as the address of an `img`: a JPEG inside the page. `quality` is Pillow's, from 0 to 100."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def confusion_rows(table: PredictionTable) -> list[list[int]] | None:
    """`confusion_counts` for an HTML table; None if there are more than 20 classes."""
    return table.confusion_counts().tolist() if len(table.class_names) <= MOST_CLASSES else None
