import csv
import json
import re

import pytest
from omegaconf import OmegaConf

from transfer_learning.cli.sweep import Leaderboard
from transfer_learning.runs.leaderboard import Job, jobs, markdown, table, write_leaderboard

COLUMNS = ["seed", "state", "val/acc_best", "test/acc", "seconds", "reason"]


def results(value, test=0.5, monitor="val/acc", mode="max", seconds=12.345):
    """metrics.json of a finished job."""
    values = {"monitor": monitor, "monitor_mode": mode, "monitor_best": value, "test/acc": test, "seconds": seconds}
    return json.dumps(values | {"epochs": 2})


@pytest.fixture
def add_job(tmp_path):
    """add_job(name, overrides, metrics): a job's folder, with a config.yaml if there are overrides."""

    def add(name, overrides=None, metrics=None, failed=None):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.log").touch()
        if overrides is not None:
            config = OmegaConf.create({"overrides": overrides, "hydra": {}})
            (tmp_path / name / "config.yaml").write_text(OmegaConf.to_yaml(config))
        for file, content in (("metrics.json", metrics), ("FAILED", failed)):
            if content is not None:
                (tmp_path / name / file).write_text(content)

    return add


@pytest.fixture
def sweep(tmp_path, add_job):
    """Two finished jobs, one that failed after it had finished, one that was killed, one with damaged metrics; and two
    folders that are no jobs.
    """
    for seed, accuracy in enumerate((0.75, 0.875, 0.9)):
        overrides, failed = ["model=cnn", f"seed={seed}"], "another config: a | b\nsecond line\n" if seed == 2 else None
        add_job(f"model=cnn,seed={seed}", overrides, results(accuracy, accuracy - 0.25), failed)
    add_job("model=cnn,seed=3")
    add_job("model=cnn,seed=4", None, "{")
    for name in (".submitit", "notes"):
        (tmp_path / name).mkdir()
    return tmp_path


def test_best_job_is_first_and_unfinished_jobs_are_last(sweep):
    found = jobs(sweep)
    assert [(job.folder, job.state, job.reason) for job in found] == [
        ("model=cnn,seed=1", "finished", None),
        ("model=cnn,seed=0", "finished", None),
        ("model=cnn,seed=2", "failed", "another config: a | b"),
        ("model=cnn,seed=3", "unfinished", None),
        ("model=cnn,seed=4", "failed", "metrics.json is damaged, or of an older version"),
    ]
    assert [job.settings for job in found] == [{"model": "cnn", "seed": str(seed)} for seed in (1, 0, 2, 3, 4)]
    assert [job.metrics.get("monitor_best") for job in found] == [0.875, 0.75, None, None, None]


def test_table_has_the_settings_that_vary_and_the_results(sweep):
    assert table(jobs(sweep)) == [
        COLUMNS,
        ["1", "finished", 0.875, 0.625, 12.3, None],
        ["0", "finished", 0.75, 0.5, 12.3, None],
        ["2", "failed", None, None, None, "another config: a | b"],
        ["3", "unfinished", None, None, None, None],
        ["4", "failed", None, None, None, "metrics.json is damaged, or of an older version"],
    ]


def test_setting_that_only_some_jobs_have_varies(add_job, tmp_path):
    add_job("a", ["seed=1", "+trainer.x=2"], results(0.5))
    add_job("b", ["seed=1"], results(0.75))
    header, *rows = table(jobs(tmp_path))
    assert header[:2] == ["trainer.x", "state"] and [row[0] for row in rows] == [None, "2"]


def test_a_single_job_has_no_settings_that_vary(add_job, tmp_path):
    add_job("seed=1", ["seed=1"], results(0.5))
    assert table(jobs(tmp_path)) == [["state", *COLUMNS[2:]], ["finished", 0.5, 0.5, 12.3, None]]


def test_metrics_that_should_be_small_are_sorted_ascending(add_job, tmp_path):
    for name, loss in (("a", 0.5), ("b", 0.25), ("c", 1.5)):
        add_job(name, [f"seed={name}"], results(loss, None, "val/loss", "min"))
    header, *rows = table(jobs(tmp_path))
    assert header == ["seed", "state", "val/loss_best", "seconds", "reason"]
    assert [row[0] for row in rows] == ["b", "a", "c"]


def test_test_column_is_there_if_some_job_was_tested(add_job, tmp_path):
    add_job("a", ["test=false"], results(0.75, None))
    assert "test/acc" not in table(jobs(tmp_path))[0]
    add_job("b", ["test=true"], results(0.5, 0.25))
    header, *rows = table(jobs(tmp_path))
    assert [row[header.index("test/acc")] for row in rows] == [None, 0.25]


def test_jobs_of_several_monitors_are_grouped(add_job, tmp_path):
    add_job("a", ["monitor=val/loss"], results(0.5, None, "val/loss", "min"))
    add_job("b", ["monitor=val/acc"], results(0.75, None))
    add_job("c", ["monitor=val/loss", "seed=1"], results(0.25, None, "val/loss", "min"))
    header, *rows = table(jobs(tmp_path))
    assert header[:4] == ["monitor", "seed", "state", "monitor_best"]
    assert [row[0] for row in rows] == ["val/acc", "val/loss", "val/loss"] and [row[3] for row in rows[1:]] == [
        0.25,
        0.5,
    ]


@pytest.mark.parametrize(
    "content", ["{}", "[]", "1", json.dumps({"val/acc_best": 0.5}), results("many"), results(0.5, seconds=None)]
)
def test_metrics_that_cannot_be_read_are_a_failure(add_job, tmp_path, content):
    add_job("a", ["seed=1"], content)
    (job,) = jobs(tmp_path)
    assert job == Job("a", {"seed": "1"}, "failed", "metrics.json is damaged, or of an older version")


def test_markdown_is_aligned_and_escapes_bars():
    text = markdown([["a", "b|c"], [None, 0.123456], ["long text", 12]])
    assert text == "| a         | b\\|c   |\n|-----------|--------|\n|           | 0.1235 |\n| long text | 12     |\n"


def test_csv_also_names_the_folders(sweep):
    write_leaderboard(sweep, jobs(sweep))
    with open(sweep / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [*COLUMNS, "folder"]
    assert [row["folder"] for row in rows] == [f"model=cnn,seed={n}" for n in (1, 0, 2, 3, 4)]
    assert rows[0]["test/acc"] == "0.625" and rows[2]["reason"] == "another config: a | b"


def test_sweep_ends_with_a_table_two_files_and_an_exit_code(sweep, capsys, monkeypatch):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    with pytest.raises(SystemExit) as end:
        Leaderboard().on_multirun_end(config)
    printed = capsys.readouterr().out
    assert end.value.code == 1 and f"2 of 5 jobs in {sweep} finished" in printed
    with open(sweep / "leaderboard.csv", newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["1", "0", "2", "3", "4"]
    text = (sweep / "leaderboard.md").read_text()
    assert text in printed
    assert {line.replace("\\|", "").count("|") for line in text.strip().split("\n")} == {len(COLUMNS) + 1}

    for seed in (2, 3, 4):
        (sweep / f"model=cnn,seed={seed}" / "FAILED").unlink(missing_ok=True)
        (sweep / f"model=cnn,seed={seed}" / "metrics.json").write_text(results(0.5))
    Leaderboard().on_multirun_end(config)  # all have finished, so it does not exit
    assert re.search(r"5 of 5 jobs in .* finished", capsys.readouterr().out)

    monkeypatch.setattr("transfer_learning.runs.leaderboard.write_text", full_disk)
    with pytest.raises(SystemExit) as end:  # Hydra would turn an exception into a warning
        Leaderboard().on_multirun_end(config)
    assert "No space left" in end.value.code and "5 of 5" in capsys.readouterr().out


def full_disk(path, text):
    raise OSError(28, "No space left on device")
