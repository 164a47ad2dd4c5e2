"""Sweeps whose command is repeated."""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from transfer_learning.engine.classifier import Classifier

TINY = (
    "data=cartoons data.image_size=32 data.train_per_class=20 data.val_per_class=8 data.test_per_class=8 trainer=cpu "
    "trainer.max_epochs=2 model.dense=[16]"
)


@pytest.fixture
def sweep(tmp_path, in_process):
    """sweep(*arguments) -> (exit code, output, {job's folder: its row of the leaderboard}); jobs are in tmp_path/sweep."""

    def run(*arguments):
        where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
        code, output = in_process("-m", *TINY.split(), *where, *arguments)
        with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        return code, output, {row["folder"]: row for row in rows}

    return run


def find(folders: Iterable[str], override: str) -> str:
    """The only one of the folders whose name has this override."""
    (found,) = (folder for folder in folders if override in folder.split(","))
    return found


def without_seconds(path: Path) -> dict:
    return {key: value for key, value in json.loads(path.read_text()).items() if "seconds" not in key}


def test_other_jobs_go_on_after_one_diverged_and_the_repeated_command_does_what_is_missing(sweep, tmp_path):
    code, output, rows = sweep("optimizer.lr=1e-3,1e9,1e-4")
    assert code == 1 and "Traceback" not in output and "2 of 3 jobs in" in output
    slow, diverged, slowest = (find(rows, f"optimizer.lr={lr}") for lr in (0.001, 1e9, 0.0001))
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {slow: "finished", diverged: "failed", slowest: "finished"}
    assert "the loss is not finite" in rows[diverged]["reason"]
    failed, message = tmp_path / "sweep" / diverged, "step 2: the loss is not finite"
    assert message in (failed / "FAILED").read_text()
    log = (failed / "train.log").read_text()
    assert log.count(message) == 2 and log.count("Traceback (most recent call last)") == 1  # one line, and a traceback

    finished, untested = tmp_path / "sweep" / slow / "metrics.json", tmp_path / "sweep" / slowest / "metrics.json"
    before, written = without_seconds(untested), finished.stat().st_mtime_ns
    assert float(rows[slow]["val/acc_best"]) == json.loads(finished.read_text())["val/acc_best"]
    untested.unlink()  # as if it had been killed before its test
    shutil.rmtree(failed)
    code, output, rows = sweep("optimizer.lr=1e-2,1e-4,1e-3")
    assert code == 0 and {row["state"] for row in rows.values()} == {"finished"} and len(rows) == 3
    assert finished.stat().st_mtime_ns == written and output.count("finished already") == 1
    assert output.count("goes on after epoch 2 of 2") == 1
    assert output.count("epoch   2/2") == 1  # only the new job trains
    assert without_seconds(untested) == before


def test_job_whose_config_was_edited_is_refused_with_the_difference(sweep, tmp_path):
    _, _, rows = sweep("seed=0,1")
    job = tmp_path / "sweep" / find(rows, "seed=1")
    config, metrics = (job / "config.yaml").read_text(), (job / "metrics.json").read_text()
    (job / "config.yaml").write_text(config.replace("batch_size: 30", "batch_size: 20"))
    code, output, rows = sweep("seed=0,1")
    assert code == 1 and "has results of another config: data.batch_size was 20, is 30" in output
    assert "Traceback" not in output
    assert sorted(row["state"] for row in rows.values()) == ["failed", "finished"]
    assert (job / "metrics.json").read_text() == metrics
    (job / "config.yaml").write_text(config)
    code, _, rows = sweep("seed=1,0")
    assert code == 0 and [row["state"] for row in rows.values()] == ["finished"] * 2


def test_job_that_fails_by_a_fault_of_the_code_has_the_traceback_in_its_own_log(sweep, tmp_path, monkeypatch):
    def fault(self):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Classifier, "on_train_start", fault, raising=False)
    code, output, rows = sweep("seed=0")
    (job,) = (tmp_path / "sweep" / name for name in rows)
    assert code == 1 and "Traceback" in output
    assert "ZeroDivisionError: a fault" in (job / "train.log").read_text()
    assert (job / "FAILED").read_text() == "a fault\n"


def test_name_of_a_sweep_needs_a_multirun(in_process, tmp_path):
    code, output = in_process(*TINY.split(), "sweep=mine", f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and "sweep=mine: names a multirun; add -m" in output
