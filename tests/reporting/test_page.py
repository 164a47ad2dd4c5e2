import base64
import io

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sklearn.metrics import confusion_matrix

from transfer_learning.reporting.page import confusion_rows, embedded
from transfer_learning.reporting.prediction_table import PredictionTable


def table(labels, predicted, classes):
    names = [f"class {n}" for n in range(classes)]
    probabilities = np.eye(classes, dtype=np.float32)[predicted]
    texts = [str(n) for n in range(len(labels))]
    return PredictionTable(texts, texts, ["val"] * len(labels), np.array(labels), probabilities, names)


def test_confusion_matrix_equals_scikit_learns():
    labels, predicted = np.random.default_rng(0).integers(0, 4, (2, 50))
    expected = confusion_matrix(labels, predicted, labels=range(5)).tolist()
    assert confusion_rows(table(labels, predicted, 5)) == expected


def test_too_many_classes_for_a_table():
    assert confusion_rows(table([0], [0], 21)) is None


@pytest.mark.parametrize("size", [(2500, 700), (300, 200), (1000, 1000)])
def test_pictures_are_small_and_inside_the_page(tmp_path, size):
    Image.new("RGBA", size, "red").save(tmp_path / "picture.png")
    kind, _, content = embedded(tmp_path / "picture.png").partition(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    assert kind == "data:image/jpeg" and picture.width <= 800
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)


@pytest.mark.parametrize("file_format", ["JPEG", "BMP", "PPM"])
def test_a_picture_of_another_format_is_an_oserror(tmp_path, file_format):
    """Runs write PNG alone, and Pillow would start Ghostscript for PostScript."""
    Image.new("RGB", (100, 100)).save(tmp_path / "picture.png", file_format)
    with pytest.raises(UnidentifiedImageError):
        embedded(tmp_path / "picture.png")


def test_a_picture_of_too_many_pixels_is_an_oserror(tmp_path, monkeypatch):
    Image.new("RGB", (100, 100)).save(tmp_path / "picture.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OSError, match="damaged"):
        embedded(tmp_path / "picture.png")


def test_damaged_picture_is_an_oserror(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"no picture")
    with pytest.raises(UnidentifiedImageError):
        embedded(tmp_path / "picture.png")
    assert issubclass(UnidentifiedImageError, OSError)


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT"])
def test_png_with_a_wrong_length_of_a_chunk_is_an_oserror(tmp_path, chunk):
    """Pillow raises ValueError and SyntaxError for these."""
    path = tmp_path / "picture.png"
    Image.effect_noise((80, 60), 50).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(chunk) - 2 : content.index(chunk)] = b"\0\7"  # the end of its length
    path.write_bytes(content)
    with pytest.raises(OSError, match="damaged"):
        embedded(path)
