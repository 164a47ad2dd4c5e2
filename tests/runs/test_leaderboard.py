import csv
import json
import re
from statistics import mean, stdev

import pytest
from omegaconf import OmegaConf

from transfer_learning.cli.sweep import Leaderboard
from transfer_learning.runs.leaderboard import (
    Job,
    leaderboard_text,
    markdown,
    read_jobs,
    repetition_table,
    table,
    write_leaderboard,
)

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


def test_jobs_may_lie_deeper_in_the_folder_of_a_sweep(tmp_path, add_job):
    (tmp_path / "a").mkdir()
    add_job("a/0", ["seed=0"], results(0.5))
    add_job("a/1", ["seed=1"], failed="why")
    assert [(job.folder, job.state) for job in read_jobs(tmp_path)] == [("a/0", "finished"), ("a/1", "failed")]


def test_a_sweep_without_jobs_is_not_complete(tmp_path):
    with pytest.raises(SystemExit) as end:
        Leaderboard().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert end.value.code == 1


def test_folder_of_the_learning_rate_finder_is_no_unfinished_run_until_it_trains(tmp_path, add_job):
    add_job("run", ["find_lr=true"])
    (tmp_path / "run" / "lr_find.json").write_text("{}")
    assert [job.state for job in read_jobs(tmp_path)] == ["learning-rate finder"]
    (tmp_path / "run" / "checkpoints").mkdir()
    assert [job.state for job in read_jobs(tmp_path)] == ["unfinished"]


def test_best_job_is_first_and_unfinished_jobs_are_last(sweep):
    found = read_jobs(sweep)
    assert [(job.folder, job.state, job.reason) for job in found] == [
        ("model=cnn,seed=1", "finished", None),
        ("model=cnn,seed=0", "finished", None),
        ("model=cnn,seed=2", "failed", "another config: a | b"),
        ("model=cnn,seed=3", "unfinished", None),
        ("model=cnn,seed=4", "failed", "metrics.json is damaged"),
    ]
    assert [job.settings for job in found] == [{"model": "cnn", "seed": str(seed)} for seed in (1, 0, 2, 3, 4)]
    assert [job.metrics.get("monitor_best") for job in found] == [0.875, 0.75, None, None, None]


def test_table_has_the_settings_that_vary_and_the_results(sweep):
    assert table(read_jobs(sweep)) == [
        COLUMNS,
        ["1", "finished", 0.875, 0.625, 12.3, None],
        ["0", "finished", 0.75, 0.5, 12.3, None],
        ["2", "failed", None, None, None, "another config: a | b"],
        ["3", "unfinished", None, None, None, None],
        ["4", "failed", None, None, None, "metrics.json is damaged"],
    ]


def test_setting_that_only_some_jobs_have_varies(add_job, tmp_path):
    add_job("a", ["seed=1", "+trainer.x=2"], results(0.5))
    add_job("b", ["seed=1"], results(0.75))
    header, *rows = table(read_jobs(tmp_path))
    assert header[:2] == ["trainer.x", "state"] and [row[0] for row in rows] == [None, "2"]


def test_a_single_job_has_no_settings_that_vary(add_job, tmp_path):
    add_job("seed=1", ["seed=1"], results(0.5))
    assert table(read_jobs(tmp_path)) == [["state", *COLUMNS[2:]], ["finished", 0.5, 0.5, 12.3, None]]


def test_metrics_that_should_be_small_are_sorted_ascending(add_job, tmp_path):
    for name, loss in (("a", 0.5), ("b", 0.25), ("c", 1.5)):
        add_job(name, [f"seed={name}"], results(loss, None, "val/loss", "min"))
    header, *rows = table(read_jobs(tmp_path))
    assert header == ["seed", "state", "val/loss_best", "seconds", "reason"]
    assert [row[0] for row in rows] == ["b", "a", "c"]


def test_test_column_is_there_if_some_job_was_tested(add_job, tmp_path):
    add_job("a", ["test=false"], results(0.75, None))
    assert "test/acc" not in table(read_jobs(tmp_path))[0]
    add_job("b", ["test=true"], results(0.5, 0.25))
    header, *rows = table(read_jobs(tmp_path))
    assert [row[header.index("test/acc")] for row in rows] == [None, 0.25]


def test_jobs_of_several_monitors_are_grouped(add_job, tmp_path):
    add_job("a", ["monitor=val/loss"], results(0.5, None, "val/loss", "min"))
    add_job("b", ["monitor=val/acc"], results(0.75, None))
    add_job("c", ["monitor=val/loss", "seed=1"], results(0.25, None, "val/loss", "min"))
    header, *rows = table(read_jobs(tmp_path))
    assert header[:4] == ["monitor", "seed", "state", "monitor_best"]
    assert [row[0] for row in rows] == ["val/acc", "val/loss", "val/loss"] and [row[3] for row in rows[1:]] == [
        0.25,
        0.5,
    ]


GROUPED = [
    "n",
    *(f"{name}, {text}" for name in ("val/acc_best", "test/acc") for text in ("mean", "standard deviation")),
]


def test_jobs_that_differ_in_seed_and_fold_alone_are_one_row(add_job, tmp_path):
    values = {"cnn": (0.5, 0.6, 0.9, 0.7), "vgg": (0.8, 0.9, 0.75, 0.85), "one": (0.95,)}
    for model, accuracies in values.items():
        for n, accuracy in enumerate(accuracies):
            settings = [f"data.fold={n // 2}", f"model={model}", f"+seed={n % 2}", "data.folds=2"]
            add_job(f"{model} {n}", settings[n % 2 :] + settings[: n % 2], results(accuracy, accuracy - 0.25))
    header, *rows = repetition_table(read_jobs(tmp_path), ("seed", "data.fold"))
    assert header == ["model", *GROUPED] and [row[0] for row in rows] == ["one", "vgg", "cnn"]
    for model, n, *numbers in rows:
        tests = [value - 0.25 for value in values[model]]
        expected = [
            each(v) if len(v) > 1 or each is mean else None for v in (values[model], tests) for each in (mean, stdev)
        ]
        assert n == len(values[model]) and numbers == [each and pytest.approx(each) for each in expected]


def test_groups_say_how_many_of_their_jobs_have_finished(add_job, tmp_path):
    for model, seed, value in (("a", 0, 0.5), ("a", 1, 0.75), ("a", 2, None), ("b", 0, None), ("b", 1, None)):
        failed = "no memory" if (model, seed) == ("b", 0) else None
        add_job(f"{model}{seed}", [f"model={model}", f"seed={seed}"], value and results(value, None), failed)
    header, *rows = repetition_table(read_jobs(tmp_path), ("seed",))
    assert header == ["model", "n", "val/acc_best, mean", "val/acc_best, standard deviation"]
    assert rows == [["a", "2 of 3", 0.625, pytest.approx(0.125 * 2**0.5)], ["b", "0 of 2", None, None]]


def test_groups_with_a_small_loss_are_first_and_monitors_are_not_mixed(add_job, tmp_path):
    for n, (monitor, mode, loss) in enumerate(
        [("val/loss", "min", 0.5), ("val/loss", "min", 0.1), ("val/acc", "max", 0.2)]
    ):
        for seed in (0, 1):
            settings = [f"monitor={monitor}", f"seed={seed}", f"lr={n}"]
            add_job(f"{n} {seed}", settings, results(loss + seed / 10, None, monitor, mode))
    header, *rows = repetition_table(read_jobs(tmp_path), ("seed",))
    assert header[:4] == ["monitor", "lr", "n", "monitor_best, mean"]
    assert [row[:2] for row in rows] == [["val/acc", "2"], ["val/loss", "1"], ["val/loss", "0"]]


def test_without_repetitions_there_is_one_table(add_job, tmp_path):
    for n in range(3):
        add_job(f"{n}", [f"lr={n}", f"seed={n}"], results(0.5))
    assert repetition_table(read_jobs(tmp_path), ("seed",))[1:] == []
    assert leaderboard_text(read_jobs(tmp_path), ("seed",)) == markdown(table(read_jobs(tmp_path)))


@pytest.mark.parametrize(
    "content", ["{}", "[]", "1", json.dumps({"val/acc_best": 0.5}), results("many"), results(0.5, seconds=None)]
)
def test_metrics_that_cannot_be_read_are_a_failure(add_job, tmp_path, content):
    add_job("a", ["seed=1"], content)
    (job,) = read_jobs(tmp_path)
    assert job == Job("a", {"seed": "1"}, "failed", "metrics.json is damaged")


def test_a_folder_that_cannot_be_read_is_one_row_and_the_others_are_as_they_are(add_job, tmp_path):
    for n in range(5):
        add_job(f"{n}", [f"seed={n}"], results(0.5))
    (tmp_path / "1" / "metrics.json").unlink()
    (tmp_path / "1" / "metrics.json").mkdir()
    (tmp_path / "2" / "FAILED").write_bytes(b"\xff\xfe not UTF-8")
    (tmp_path / "3" / "config.yaml").write_text("overrides: 7\ndata: {a: 1}")
    (tmp_path / "4" / "metrics.json").write_text(results(0.5).replace('"val/acc"', "7"))
    assert {job.folder: job.state for job in read_jobs(tmp_path)} == {
        "0": "finished", "1": "failed", "2": "failed", "3": "finished", "4": "finished"
    }  # fmt: skip
    table(read_jobs(tmp_path))


def test_markdown_is_aligned_and_escapes_bars():
    text = markdown([["a", "b|c"], [None, 0.123456], ["long text", 12]])
    assert text == "| a         | b\\|c   |\n|-----------|--------|\n|           | 0.1235 |\n| long text | 12     |\n"


def test_csv_also_names_the_folders(sweep):
    write_leaderboard(sweep, read_jobs(sweep), ("seed",))
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
    written = (sweep / "leaderboard.md").read_text()
    assert written in printed
    of_jobs, of_groups = written.strip().split("\n\n")
    assert {line.replace("\\|", "").count("|") for line in of_jobs.split("\n")} == {len(COLUMNS) + 1}
    assert "| 2 of 5 | 0.8125 " in of_groups

    for seed in (2, 3, 4):
        (sweep / f"model=cnn,seed={seed}" / "FAILED").unlink(missing_ok=True)
        (sweep / f"model=cnn,seed={seed}" / "metrics.json").write_text(results(0.5))
    Leaderboard().on_multirun_end(config)  # all have finished, so it does not exit
    assert re.search(r"5 of 5 jobs in .* finished", capsys.readouterr().out)

    monkeypatch.setattr("transfer_learning.runs.leaderboard.write_text", full_disk)
    with pytest.raises(SystemExit) as end:  # Hydra would turn an exception into a warning
        Leaderboard().on_multirun_end(config)
    assert re.match("no leaderboard, OSError.*No space left", end.value.code) and "5 of 5" in capsys.readouterr().out


def full_disk(path, text):
    raise OSError(28, "No space left on device")
