"""benchmarks/epoch.py: the whole command, on few drawings."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import epoch as command
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "epoch.py"
SMALL = ["data.train_per_class=30", "data.val_per_class=15", "data.test_per_class=15", "trainer=cpu"]


def epoch(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_rows_and_variants_that_are_asked_for(tmp_path):
    old = str(SCRIPT.parents[1])
    done = epoch("--rounds=2", "--rows", "basic", "head", "--variants", "project", "old", "bare", f"--old={old}",
                 f"--json={tmp_path}/x.json", *SMALL)  # fmt: skip
    assert done.returncode == 0, done.stderr
    stored = json.loads((tmp_path / "x.json").read_text())
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=old, capture_output=True, text=True).stdout
    assert stored["commit"][:10] == head[:10]
    rows = stored["rows"]
    assert list(rows) == ["basic", "head"]
    assert all(list(variants) == ["project", "old", "bare"] for variants in rows.values())
    assert all(len(seconds) == 2 and min(seconds) > 0 for row in rows.values() for seconds in row.values())
    assert "basic: seconds, median (range) of 2 rounds" in done.stdout


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ("basic", ["seed=1"]),
        ("vgg16", ["model.weights=folder", "seed=1"]),
        ("resnet18", ["seed=1", "model.weights=null"]),
    ],
)
def test_weights_are_for_the_backbones_that_have_some(row, kept):
    assert command.overrides_of(row, ["model.weights=folder", "seed=1"]) == kept


@pytest.fixture
def refused(monkeypatch, capsys):
    """refused(*arguments): what the command writes to stderr before it exits with an error, in this process."""
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "level", logging.INFO)  # restored

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as stopped:
            command.main()
        assert stopped.value.code
        text = "" if isinstance(stopped.value.code, int) else stopped.value.code  # Python prints it
        return capsys.readouterr().err + text

    return call


def test_an_unknown_row_is_one_line(refused):
    assert "--rows: basics is none of basic, regularised" in refused("--rows", "basics")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "projct"], "--variants projct: basic has project, bare, limit"),
        (["--old", "nowhere"], "--old nowhere: no checkout of this project"),
        (["--json", "nowhere/out.json"], "--json nowhere/out.json: there is no such folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(refused, arguments, message):
    assert message in refused("--rows", "basic", *arguments, *SMALL)
