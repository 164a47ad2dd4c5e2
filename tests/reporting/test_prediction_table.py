import csv
import tracemalloc

import numpy as np
import pytest

from transfer_learning.reporting.prediction_table import PredictionTable, read_predictions, write_predictions
from transfer_learning.utilities.errors import UserError

NAMES = ("cat", "file", "a,b", "é\nü")


def table(split="val", count=5):
    rng = np.random.default_rng(len(split))
    probabilities = rng.dirichlet(np.ones(4), count).astype(np.float32)
    files = [f'/photos of {split}/{n}, "{n}".jpg' for n in range(count)]
    return PredictionTable(
        files, [f"{n:064x}" for n in range(count)], [split] * count, rng.integers(4, size=count), probabilities, NAMES
    )


def test_what_is_read_is_what_was_written_to_the_last_bit(tmp_path):
    val, test = table("val"), table("test", 3)
    write_predictions(tmp_path / "predictions.csv", [val, test])
    found = read_predictions(tmp_path / "predictions.csv")
    assert found.class_names == NAMES and found.probabilities.dtype == np.float32 and found.labels.dtype == np.int64
    for split, expected in (("val", val), ("test", test)):
        part = found.of(split)
        assert list(part.files) == expected.files and list(part.digests) == expected.digests
        assert np.array_equal(part.labels, expected.labels)
        assert np.array_equal(part.probabilities, expected.probabilities)
        assert np.array_equal(part.predicted, expected.probabilities.argmax(axis=1))
    assert not found.of("other").files


def test_a_table_of_many_classes_is_never_in_memory_as_texts(tmp_path):
    """200 images of 1,000 classes: 0.8 MB as numbers, 12 MB as Python's texts."""
    names, path = tuple(f"class {code}" for code in range(1000)), tmp_path / "predictions.csv"
    probabilities = np.random.default_rng(0).dirichlet(np.ones(1000), 200).astype(np.float32)
    written = PredictionTable(["x"] * 200, [""] * 200, ["val"] * 200, np.arange(200), probabilities, names)
    tracemalloc.start()
    try:
        write_predictions(path, [written])
        found = read_predictions(path)
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()
    assert np.array_equal(found.probabilities, probabilities)
    rows = [["x", "", "val", names[n], names[p.argmax()], *map(str, p)] for n, p in enumerate(probabilities)]
    expected = [["file", "sha256", "split", "label", "predicted", *(f"p:{name}" for name in names)], *rows]
    assert path.read_bytes() == "".join(f"{','.join(row)}\r\n" for row in expected).encode()


def test_columns_and_names_of_classes(tmp_path):
    written = table()
    write_predictions(tmp_path / "predictions.csv", [written])
    with open(tmp_path / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "sha256", "split", "label", "predicted", *(f"p:{name}" for name in NAMES)]
    assert rows[0]["file"] == '/photos of val/0, "0".jpg'
    assert [row["label"] for row in rows] == [NAMES[code] for code in written.labels]
    assert [row["predicted"] for row in rows] == [NAMES[code] for code in written.predicted]


HEADER = "file,sha256,split,label,predicted,p:cat\n"


@pytest.mark.parametrize(
    "text", [None, "", "a,b\n1,2\n", f"{HEADER}x,y,val,dog,cat,1\n", f"{HEADER}x,y,val,cat,cat,1,0.5\n"]
)
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "predictions.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=r"predictions\.csv: not a table of predictions, or damaged"):
        read_predictions(path)


def test_row_that_lacks_a_column_is_refused(tmp_path):
    write_predictions(tmp_path / "predictions.csv", [table()])
    text = (tmp_path / "predictions.csv").read_bytes().rstrip()
    (tmp_path / "predictions.csv").write_bytes(text.rpartition(b",")[0])
    with pytest.raises(UserError, match=r"predictions\.csv: not a table of predictions, or damaged"):
        read_predictions(tmp_path / "predictions.csv")
