"""A sweep's command, typed again."""

import csv
import json
import shutil

import pytest

TINY = (
    "data=cartoons data.image_size=32 data.train_per_class=20 data.val_per_class=8 data.test_per_class=8 trainer=cpu trainer.max_epochs=2 "
    "model.dense=[16]"
)


@pytest.fixture
def sweep(tmp_path, in_process):
    """sweep(*arguments) -> (exit code, output, {job: its row of the leaderboard}); the jobs lie in tmp_path/sweep."""

    def run(*arguments):
        where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
        code, output = in_process("-m", *TINY.split(), *where, *arguments)
        with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
            rows = {row["overrides"].split(",optimizer")[-1].split(",trainer")[0]: row for row in csv.DictReader(file)}
        return code, output, rows

    return run


def job(tmp_path, part):
    (folder,) = (path for path in (tmp_path / "sweep").iterdir() if part in path.name)
    return folder


def test_one_job_diverges_and_the_others_go_on_then_the_same_command_does_what_is_missing(sweep, tmp_path):
    code, output, rows = sweep("optimizer.lr=1e-3,1e9,1e-4")
    assert code == 1 and "Traceback" not in output and "2 of 3 jobs in" in output
    assert {job: row["state"] for job, row in rows.items()} == {
        ".lr=0.001": "finished",
        ".lr=1000000000.0": "failed",
        ".lr=0.0001": "finished",
    }
    assert "the loss is not finite" in rows[".lr=1000000000.0"]["reason"]
    failed = job(tmp_path, "lr=1000000000.0")
    assert "step 2: the loss is not finite" in (failed / "FAILED").read_text()
    assert (failed / "train.log").read_text().count(
        "step 2: the loss is not finite"
    ) == 2  # the message, and below its traceback
    assert (failed / "train.log").read_text().count("Traceback (most recent call last)") == 1

    finished = job(tmp_path, "lr=0.001") / "metrics.json"
    metrics, written = json.loads(finished.read_text()), finished.stat().st_mtime_ns
    assert float(rows[".lr=0.001"]["val/acc_best"]) == metrics["val/acc_best"]
    (job(tmp_path, "lr=0.0001") / "metrics.json").rename(tmp_path / "metrics.json")  # as if killed before its test
    shutil.rmtree(failed)
    code, output, rows = sweep("optimizer.lr=1e-2,1e-4,1e-3")
    assert code == 0 and {row["state"] for row in rows.values()} == {"finished"} and len(rows) == 3
    assert finished.stat().st_mtime_ns == written and output.count("finished already") == 1
    assert (
        output.count("goes on after epoch 2 of 2") == 1 and output.count("epoch   2/2") == 1
    )  # only the new one trains
    again = json.loads((job(tmp_path, "lr=0.0001") / "metrics.json").read_text())
    before = json.loads((tmp_path / "metrics.json").read_text())
    assert {key: value for key, value in again.items() if "seconds" not in key} == {
        k: v for k, v in before.items() if "seconds" not in k
    }


def test_a_job_whose_config_was_edited_is_refused_with_the_difference(sweep, tmp_path):
    sweep("seed=0,1")
    config = job(tmp_path, "seed=1") / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 30", "batch_size: 20"))
    (job(tmp_path, "seed=1") / "train.log").write_text("")
    metrics = (job(tmp_path, "seed=1") / "metrics.json").read_text()
    code, output, rows = sweep("seed=0,1")
    assert code == 1 and "holds results of another config: data.batch_size was 20, is 30" in output
    assert sorted(row["state"] for row in rows.values()) == ["failed", "finished"]
    assert (job(tmp_path, "seed=1") / "metrics.json").read_text() == metrics
    config.write_text(config.read_text().replace("batch_size: 20", "batch_size: 30"))
    code, _, rows = sweep("seed=1,0")
    assert code == 0 and [row["state"] for row in rows.values()] == ["finished"] * 2


def test_a_job_that_a_fault_of_the_code_ends_has_the_traceback_in_its_own_log(sweep, tmp_path, monkeypatch):
    from transfer_learning.models.classifier import Classifier

    def fault(self):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(Classifier, "on_train_start", fault, raising=False)
    code, output, _ = sweep("seed=0")
    assert code == 1 and "Traceback" in output
    assert "ZeroDivisionError: a fault" in (job(tmp_path, "seed=0") / "train.log").read_text()
    assert (job(tmp_path, "seed=0") / "FAILED").read_text() == "a fault\n"


def test_a_name_is_for_a_multirun(in_process, tmp_path):
    code, output = in_process(*TINY.split(), "sweep=mine", f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and "sweep=mine: names a multirun; add -m" in output
