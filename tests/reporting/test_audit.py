import base64
import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from transfer_learning.reporting.audit import KINDS, Audit, Finding, thumbnail, write_audit_page, write_table

FINDINGS = [
    Finding("near-duplicate", 0, 0.98765, "mirrored", other=2),
    Finding("near-duplicate", 1, 0.9, "", other=0),
    Finding("label", 3, -0.91, "looks like dog"),
]


@pytest.fixture
def audit():
    files = ["photos/cat/1.png", "photos/cat/<b>.png", "photos/cat/3.png", "photos/dog/1.png"]
    summary = {"mode": "RGB 4", "width": "5 to 9 pixels, median 7"}
    return Audit(files, list("abcd"), ["train", "", "test", "train"], ["cat", "cat", "cat", "dog"], FINDINGS, summary)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, 200, 200, 3), dtype=np.uint8)


def test_table_has_a_row_a_finding_and_nothing_excluded(audit, tmp_path):
    write_table(tmp_path / "audit.csv", audit)
    with open(tmp_path / "audit.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["exclude"] for row in rows] == [""] * 3
    assert rows[0] == {
        "exclude": "",
        "finding": "near-duplicate",
        "score": "0.9877",
        "file": "photos/cat/1.png",
        "sha256": "a",
        "split": "train",
        "class": "cat",
        "detail": "mirrored",
        "other_file": "photos/cat/3.png",
        "other_split": "test",
        "other_class": "cat",
    }
    assert [rows[2][key] for key in ("file", "detail", "other_file")] == ["photos/dog/1.png", "looks like dog", ""]


def test_counts_and_pairs_across_splits(audit):
    assert [audit.is_across(finding) for finding in FINDINGS] == [True, False, False]
    counts = {title: rest for title, *rest in audit.counts()}
    assert list(counts) == list(KINDS.values())
    assert counts["Near-duplicates"] == [2, 1] and counts["Suspect labels"] == [1, 0] and counts["Outliers"] == [0, 0]


def test_page_shows_pairs_side_by_side_and_needs_nothing_else(audit, pixels, tmp_path):
    write_audit_page(tmp_path / "audit.html", audit, pixels, top=40)
    page = (tmp_path / "audit.html").read_text()
    figures = re.findall(r"<figure.*?</figure>", page, re.DOTALL)
    assert [len(re.findall("<img", figure)) for figure in figures] == [2, 2, 1]
    assert ['class="across"' in figure for figure in figures] == [True, False, False]
    assert "0.988, mirrored" in figures[0] and "cat/1.png<br>train, cat" in figures[0]
    assert "no split, cat" in figures[1] and "&lt;b&gt;.png" in figures[1] and "<b>" not in page
    assert "Near-duplicates: 2</h2>" in page and "Outliers:" not in page and "5 to 9 pixels" in page
    assert not re.findall(r"(src|href)=\"(?!data:)", page) and "http" not in page
    for address in re.findall(r'src="(.*?)"', page):
        picture = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
        assert picture.size == (160, 160)


@pytest.mark.parametrize("top, shown", [(0, 0), (1, 2)])
def test_page_shows_the_first_of_each_kind(audit, pixels, tmp_path, top, shown):
    write_audit_page(tmp_path / "audit.html", audit, pixels, top)
    page = (tmp_path / "audit.html").read_text()
    assert page.count("<figure") == shown and f"Near-duplicates: 2, the first {top}</h2>" in page


def test_every_kind_is_explained(audit, pixels, tmp_path):
    findings = [Finding(kind, 0, 0.5) for kind in KINDS]
    every = Audit(audit.files, audit.digests, audit.splits, audit.classes, findings, {})
    write_audit_page(tmp_path / "audit.html", every, pixels, 40)
    page = (tmp_path / "audit.html").read_text()
    assert all(f"{title}: 1</h2>\n<p>" in page for title in KINDS.values()) and "<p></p>" not in page


@pytest.mark.parametrize("size", [(30, 30), (500, 500)])
def test_thumbnails_are_the_pixels_made_small(size):
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, size[0] // 2 :] = (250, 10, 10)
    kind, _, content = thumbnail(pixels).partition(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(content)))
    side = min(160, size[0])
    assert kind == "data:image/jpeg" and picture.size == (side, side)
    red = np.asarray(picture)[:, -3:, 0].mean()
    assert red == pytest.approx(250, abs=6) and np.asarray(picture)[:, :3].mean() < 6
