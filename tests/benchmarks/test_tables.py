"""benchmarks/tables.py: from the folders of runs to CSV files and Markdown tables."""

import csv
import json
import shutil

import pytest

from benchmarks import tables
from transfer_learning.reporting.intervals import wilson_interval


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "docs" / "measurements").mkdir(parents=True)
    return tmp_path / "docs"


@pytest.fixture
def add_run(tmp_path):
    """add_run(name, overrides, commit, **metrics): the folder of a finished run."""

    def add(name, overrides, commit="0123456789abcdef", processor="A chip", dirty=False, **metrics):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        values = {
            "monitor": "val/acc",
            "monitor_mode": "max",
            "monitor_best": 0.9,
            "val/acc_best": 0.9,
            "seconds": 12.3,
        }
        values |= {"test/acc": 0.8, "images_val": 100, "images_test": 50, "epochs": 3, "device": "cpu"} | metrics
        attempt = {"started": "now", "git_commit": commit, "git_dirty": dirty, "packages": {"torch": "2.9"}}
        attempt |= {"machine": {"processor": processor}, "threads": 2}
        (folder / "train.log").write_text("")
        (folder / "metrics.json").write_text(json.dumps(values))
        (folder / "provenance.json").write_text(json.dumps([{**attempt, "git_commit": "of an earlier start"}, attempt]))
        listed = "".join(f"- {json.dumps(each)}\n" for each in overrides.split(" "))
        (folder / "config.yaml").write_text(f"data: {{a: 1}}\noverrides:\n{listed}")
        return tmp_path / "runs"

    return add


def table(docs, name="mine"):
    """The sentence above a table, and its rows: a dict each."""
    section = (docs / "measurements.md").read_text().partition(f"## {name}\n")[2].partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    sentence = next(line for line in section.splitlines() if line.startswith("`python"))
    return sentence, [dict(zip(lines[0], line)) for line in lines[2:]]


def test_repeated_runs_are_one_row_with_mean_and_range(add_run, docs):
    for seed, accuracy in enumerate((0.90, 0.92, 0.97)):
        add_run(
            f"a{seed}",
            f"model=vgg16 data.root=/home/me/photos lr=1e-3 seed={seed}",
            **{"val/acc_best": accuracy, "seconds_features": 60.0 * (seed == 0)},
        )
    folder = add_run("b", "model=vgg16 data.root=../photos lr=1e-4 hydra.run.dir=/x", **{"val/acc_best": 0.95})
    file = docs / "measurements" / "mine.csv"
    assert tables.update(file, [folder]) == 4
    tables.render(docs)
    sentence, rows = table(docs)
    assert (
        sentence
        == "`python train.py model=vgg16 data.root=…/photos`; commit 0123456789, machine A chip, threads: 2, torch 2.9"
    )
    assert [row["added to the command"] for row in rows] == ["`lr=1e-4`", "`lr=1e-3`"]  # the best mean first
    low, high = wilson_interval(93, 100)
    assert rows[1]["validation accuracy"] == "0.930 (0.900–0.970)"
    assert rows[1]["validation, 95 % interval"] == f"{low:.3f}–{high:.3f}" and rows[1]["test accuracy"] == "0.800"
    assert rows[1]["repeated"] == "seed=0, seed=1, seed=2" and rows[1]["fit, s"] == "12.3"
    assert rows[1]["features, s"] == "60"  # computed once
    assert "images/s" not in rows[0] and "/home" not in file.read_text() + (docs / "measurements.md").read_text()


def test_rows_stay_when_their_folders_are_gone_and_a_repeated_run_replaces_its_own(add_run, docs):
    folder, file = add_run("a", "lr=1"), docs / "measurements" / "mine.csv"
    tables.update(file, [folder])
    shutil.rmtree(folder)
    tables.update(file, [add_run("b", "lr=2", **{"val/acc_best": 0.5, "megabytes": 20.0})])
    tables.update(file, [add_run("b", "lr=2", **{"val/acc_best": 0.6, "megabytes": 20.0})])
    tables.update(file, [add_run("b", "lr=2", commit="fedcba9876543210", processor="B", dirty=True)])
    with open(file, newline="") as opened:
        found = [(row["settings"], row["commit"], row["val/acc_best"]) for row in csv.DictReader(opened)]
    assert found == [
        ("lr=1", "0123456789", "0.9"),
        ("lr=2", "0123456789", "0.6"),
        ("lr=2", "fedcba9876 with changes", "0.9"),
    ]
    tables.render(docs)
    sentence, rows = table(docs)
    assert sentence == "`python train.py`; torch 2.9" and {row["machine"] for row in rows} == {
        "A chip, threads: 2",
        "B, threads: 2",
    }
    assert [row["MB"] for row in rows if row["validation accuracy"] == "0.600"] == ["20"]


def test_runs_without_results_are_left_out_and_texts_stand_above_their_tables(add_run, docs):
    folder = add_run("a", "lr=1", **{"test/acc": None, "images_test": None})
    add_run("b", "lr=2")
    (folder / "b" / "metrics.json").unlink()
    (docs / "measurements" / "mine.md").write_text("Chosen on validation.\n")
    assert tables.update(docs / "measurements" / "mine.csv", [folder]) == 1
    tables.render(docs)
    assert "## mine\n\nChosen on validation.\n\n`python" in (docs / "measurements.md").read_text()
    _, rows = table(docs)
    assert len(rows) == 1 and "test accuracy" not in rows[0]
