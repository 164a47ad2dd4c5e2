"""benchmarks/growth.py and growth_report.py: all stages of a small combination, and the table of made-up results."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import growth, growth_report

STAGES = growth.STAGES


def test_combinations():
    pairs = [(3, 2), (25, 2), (25, 100), (25, 1000), (100, 2), (100, 1000)]
    assert growth.combinations([3, 25, 100], [2, 100, 1000]) == pairs


def test_repeated_files_differ_and_are_spread_over_classes(tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for file in files:
        file.write_text(file.name)
    growth.repeat(files, tmp_path / "out", 10, 3)
    written = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len({file.read_bytes() for file in written}) == len(written) == 10
    assert all(file.read_bytes().startswith({".jpg": b"a.jpg", ".png": b"b.png"}[file.suffix]) for file in written)
    assert sorted(len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir()) == [3, 3, 4]


def made_up(pair):
    """Stage n takes images ** n seconds."""
    stages = {stage: {"seconds": float(pair[0] ** n), "MB": 7.0 * pair[1]} for n, stage in enumerate(STAGES)}
    return {"images": pair[0], "classes": pair[1], "place": {"processor": "A chip"}, "stages": stages}


def test_report_of_one_number_of_classes(tmp_path):
    for pair in growth.combinations([2, 4], [2]):
        (tmp_path / f"{pair[0]}-images-{pair[1]}-classes.json").write_text(json.dumps(made_up(pair)))
    growth_report.main(str(tmp_path), str(tmp_path / "out"))
    assert [line for line in (tmp_path / "out" / "growth.md").read_text().splitlines() if "## " in line] == [
        "## 2 classes"
    ]


def test_report_has_the_powers_of_the_growth(tmp_path):
    for pair in growth.combinations([2, 4, 8], [2, 4]):
        (tmp_path / f"{pair[0]}-images-{pair[1]}-classes.json").write_text(json.dumps(made_up(pair)))
    growth_report.main(str(tmp_path), str(tmp_path / "out"))
    lines = (tmp_path / "out" / "growth.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    for n, stage in enumerate(STAGES):
        by_images = next(row for row in rows if row[0] == stage and len(row) == 4)
        assert by_images[2].endswith(f"({n:.2f})") and by_images[3].endswith(f"({n:.2f})")
    first = [sum(images ** STAGES.index(stage) for stage in growth_report.FIRST_START) for images in (2, 4)]
    text = next(row for row in rows if row[0] == "first start" and len(row) == 4)[2]
    assert text == f"{first[1]:,} ({math.log2(first[1] / first[0]):.2f})"
    assert ["find", "28", "28 (0.00)"] in [row for row in rows if len(row) == 3]  # memory with four classes
    assert Image.open(tmp_path / "out" / "growth.png").width > 1000


def test_a_folder_without_photographs_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [growth.__file__, str(tmp_path), "--short"])
    with pytest.raises(SystemExit) as stopped:
        growth.main()
    assert stopped.value.code == 2 and f"{tmp_path}: no photographs there" in capsys.readouterr().err


def test_a_report_of_no_measurements_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=f"{tmp_path}: no measurements of growth.py there"):
        growth_report.main(str(tmp_path), str(tmp_path))


@pytest.mark.slow
def test_all_stages_of_some_images(tmp_path):
    (tmp_path / "photographs").mkdir()
    for n in range(5):
        pixels = np.random.default_rng(n).integers(256, size=(80, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{n}.jpg")
    command = [sys.executable, growth.__file__, tmp_path / "photographs", "--short", "--results", tmp_path / "results"]
    for _ in range(2):  # the second time nothing is measured
        done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=300)
        assert not done.returncode, done.stdout + done.stderr
    assert "head epoch" not in done.stdout
    for images in (60, 120):
        found = json.loads(Path(tmp_path, "results", f"{images}-images-2-classes.json").read_bytes())
        assert tuple(found["stages"]) == STAGES
        assert all(each["seconds"] > 0 and 20 < each["MB"] < each["maxrss_MB"] for each in found["stages"].values())
    assert (tmp_path / "results" / "growth.md").exists() and (tmp_path / "results" / "growth.png").exists()
