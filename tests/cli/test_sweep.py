"""Sweeps, and sweeps whose command is repeated."""

import csv
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from statistics import mean

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import train
from transfer_learning.cli.sweep import Leaderboard
from transfer_learning.engine.classifier import Classifier

PROJECT = Path(train.__file__).parent
SIZES = ["data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8"]
TINY = ["data=cartoons", *SIZES, "trainer=cpu", "trainer.max_epochs=2", "model.channels=[4]", "model.dense=[16]"]
TINY += ["callbacks=[checkpoints]"]  # the others take most of the time


@pytest.fixture
def sweep(tmp_path, in_process):
    """sweep(*arguments) -> (exit code, output, rows of the leaderboard); the jobs are in tmp_path/sweep."""

    def run(*arguments):
        where = [f"hydra.sweep.dir={tmp_path}/sweep", f"data.cache_dir={tmp_path}/cache"]
        code, output = in_process("-m", *TINY, *where, *arguments)
        with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
            return code, output, list(csv.DictReader(file))

    run.folder = tmp_path / "sweep"
    return run


def job(tmp_path, text):
    (folder,) = (path for path in (tmp_path / "sweep").iterdir() if text in path.name)
    return folder


def without_seconds(path):
    return {key: value for key, value in json.loads(path.read_text()).items() if "seconds" not in key}


def test_other_jobs_go_on_after_one_diverged_and_the_repeated_command_does_what_is_missing(sweep, tmp_path):
    code, output, rows = sweep("optimizer.lr=1e-3,1e30,1e-4")
    assert code == 1 and "Traceback" not in output and "2 of 3 jobs in" in output
    rows = {float(row["optimizer.lr"]): row for row in rows}
    assert {rate: row["state"] for rate, row in rows.items()} == {1e-3: "finished", 1e30: "failed", 1e-4: "finished"}
    assert "the loss is not finite" in rows[1e30]["reason"]
    failed = job(tmp_path, "lr=1e+30")
    assert "step 2: the loss is not finite" in (failed / "FAILED").read_text()
    log = (failed / "train.log").read_text()
    assert log.count("step 2: the loss is not finite") == 2  # the message, and below its traceback
    assert log.count("Traceback (most recent call last)") == 1

    finished = job(tmp_path, "lr=0.001") / "metrics.json"
    metrics, written = json.loads(finished.read_text()), finished.stat().st_mtime_ns
    assert float(rows[1e-3]["val/acc_best"]) == metrics["val/acc_best"]
    (job(tmp_path, "lr=0.0001") / "metrics.json").rename(tmp_path / "metrics.json")  # as if killed before its test
    shutil.rmtree(failed)
    code, output, rows = sweep("optimizer.lr=1e-2,1e-4,1e-3")
    assert code == 0 and {row["state"] for row in rows} == {"finished"} and len(rows) == 3
    assert finished.stat().st_mtime_ns == written and output.count("finished already") == 1
    assert output.count("goes on after epoch 2 of 2") == 1
    assert output.count("epoch   2/2") == 1  # only the new job trains
    assert without_seconds(job(tmp_path, "lr=0.0001") / "metrics.json") == without_seconds(tmp_path / "metrics.json")


@pytest.mark.slow
def test_leaderboard_shows_the_settings_that_vary_and_the_best_first(sweep):
    _, output, rows = sweep("seed=0,1", "optimizer.lr=1e-3,1e-4", "test=false")
    assert list(rows[0])[:2] in (["seed", "optimizer.lr"], ["optimizer.lr", "seed"])
    assert list(rows[0])[2:] == ["state", "val/acc_best", "seconds", "reason", "folder"]
    values = [float(row["val/acc_best"]) for row in rows]
    assert len(rows) == 4 and values == sorted(values, reverse=True)
    header = next(line for line in output.splitlines() if "state" in line)
    assert "optimizer.lr" in header and "data" not in header and "max_epochs" not in header and "test" not in header


def test_leaderboard_is_sorted_by_the_monitored_metric(sweep):
    _, _, rows = sweep("seed=0,1,2", "monitor=val/loss")
    assert list(rows[0]) == ["seed", "state", "val/loss_best", "test/acc", "seconds", "reason", "folder"]
    losses = [float(row["val/loss_best"]) for row in rows]
    assert losses == sorted(losses) and len(set(losses)) == 3
    assert all("monitor=val-loss" in row["folder"] for row in rows)


@pytest.mark.slow
def test_jobs_may_differ_in_their_monitor(sweep, tmp_path):
    code, _, rows = sweep("monitor=val/loss,val/acc")
    assert code == 0 and [row["monitor"] for row in rows] == ["val/acc", "val/loss"]
    assert job(tmp_path, "monitor=val-loss") != job(tmp_path, "monitor=val-acc")


@pytest.mark.slow
def test_job_whose_config_was_edited_is_refused_with_the_difference(sweep, tmp_path):
    sweep("seed=0,1")
    config = job(tmp_path, "seed=1") / "config.yaml"
    config.write_text(config.read_text().replace("batch_size: 30", "batch_size: 20"))
    (job(tmp_path, "seed=1") / "train.log").write_text("")
    metrics = (job(tmp_path, "seed=1") / "metrics.json").read_text()
    code, output, rows = sweep("seed=0,1")
    assert code == 1 and "has results of another config: data.batch_size was 20, is 30" in output
    assert "Traceback" not in output
    assert sorted(row["state"] for row in rows) == ["failed", "finished"]
    assert (job(tmp_path, "seed=1") / "metrics.json").read_text() == metrics
    config.write_text(config.read_text().replace("batch_size: 20", "batch_size: 30"))
    code, _, rows = sweep("seed=1,0")
    assert code == 0 and [row["state"] for row in rows] == ["finished"] * 2


@pytest.mark.slow
def test_key_that_the_program_gained_later_does_not_refuse_a_finished_sweep(sweep, tmp_path):
    sweep("seed=0,1")
    for seed in (0, 1):
        path = job(tmp_path, f"seed={seed}") / "config.yaml"
        config = OmegaConf.load(path)
        del config.data.resize, config.test
        OmegaConf.save(config, path)
    code, output, _ = sweep("seed=0,1")
    assert code == 0 and output.count("finished already") == 2, output


def test_job_that_ends_with_a_programming_error_has_the_traceback_in_its_log(sweep, tmp_path, monkeypatch):
    def fail(self):
        raise ZeroDivisionError("a programming error")

    monkeypatch.setattr(Classifier, "on_train_start", fail, raising=False)
    code, output, _ = sweep("seed=0")
    assert code == 1 and "Traceback" in output
    assert "ZeroDivisionError: a programming error" in (job(tmp_path, "seed=0") / "train.log").read_text()
    assert (job(tmp_path, "seed=0") / "FAILED").read_text() == "a programming error\n"


def test_name_of_a_sweep_needs_a_multirun(in_process, tmp_path):
    code, output = in_process(*TINY, "sweep=mine", f"hydra.run.dir={tmp_path}/run")
    assert code == 1 and "sweep=mine: names a sweep; add -m" in output


@pytest.mark.slow
def test_cross_validation_over_seeds_ends_with_a_row_for_each_setting(sweep, tmp_path):
    settings = ["data.folds=2", "data.fold=0,1", "data.batch_size=10", "seed=0,1", "optimizer.lr=1e-3,1e-4"]
    code, output, rows = sweep(*settings)
    assert code == 0 and len(rows) == 8 and {"data.fold", "seed", "optimizer.lr"} <= set(rows[0])
    lines = (tmp_path / "sweep" / "leaderboard.md").read_text().split("\n\n")[1].strip().split("\n")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:3] == ["optimizer.lr", "n", "val/acc_best, mean"] and len(cells) == 2 + 2
    for rate, n, average, *_ in cells[2:]:
        found = [float(row["val/acc_best"]) for row in rows if row["optimizer.lr"] == rate]
        assert n == "4" and float(average) == pytest.approx(mean(found), abs=1e-4)
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "2 folds × 2 seeds" in page and "2 folds × 2 seeds" not in output
    held = {row["data.fold"]: validation_images(tmp_path / "sweep" / row["folder"]) for row in rows}
    assert not held["0"] & held["1"] and len(held["0"] | held["1"]) == 2 * (20 + 8)


def validation_images(folder):
    with open(folder / "split.csv", newline="") as file:
        return {row["sha256"] for row in csv.DictReader(file) if row["split"] == "val"}


@pytest.mark.slow
def test_learning_curve_of_any_model_and_data(sweep, tmp_path):
    settings = ["experiment=learning_curve", "model=basic_cnn", "data.train_share=0.05,0.2,1.0", "seed=0,1"]
    code, output, rows = sweep(*settings, "trainer.max_epochs=1")
    assert code == 0, output
    assert sorted((row["data.train_share"], row["seed"]) for row in rows) == [
        (share, seed) for share in ("0.05", "0.2", "1.0") for seed in ("0", "1")
    ]
    images = {json.loads(path.read_text())["images_train"] for path in (tmp_path / "sweep").glob("*/metrics.json")}
    assert images == {2, 8, 40}
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "training images</text>" in page


def test_learning_curve_as_it_is(composed):
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        params = compose("config", ["experiment=learning_curve"], return_hydra_config=True).hydra.sweeper.params
    assert params == {"data.train_share": "0.01,0.03,0.1,0.3,1.0", "seed": "0,1,2"}
    cfg = composed("experiment=learning_curve", "data.train_share=0.01", "seed=2")
    assert (cfg.trainer.max_epochs, cfg.data.share_seed, cfg.model.pool) == (300, 2, "average")
    cfg = composed("experiment=learning_curve", "data.train_share=0.1", "model=pretrained", "model.backbone=resnet18")
    assert (cfg.trainer.max_epochs, cfg.choices.model, cfg.data.image_size) == (95, "resnet18_frozen", 224)
    cfg = composed("experiment=learning_curve", "data=image_folder", "data.root=x", "data.train_share=0.1")
    assert cfg.data.source.endswith("Folder")


@pytest.mark.parametrize(
    "setting, message",
    [
        ("data.train_share=0", "data.train_share=0: expected"),
        ("data.train_share=all", "data.train_share=all: expected"),
        ("data.train_share=3", "data.train_share=3: expected"),
        ("data.folds=1", "data.folds=1: expected"),
        ("data.fold=1", "data.fold=1: expected"),
        ("data.folds=60", "data.folds=60: fewer images"),
    ],
)
def test_wrong_shares_and_folds_are_named_as_they_are_typed(sweep, setting, message):
    code, output, _ = sweep("experiment=learning_curve", "model=basic_cnn", "data.train_share=1.0", "seed=0", setting)
    assert code == 1 and message in output and "Traceback" not in output


@pytest.mark.parametrize(
    "gpus, cores, arguments, refused",
    [
        (1, 4, [], "hydra.launcher.n_jobs=-1: 4 jobs at a time, but GPUs: 1; expected 1, or a larger number"),
        (2, 4, ["hydra.launcher.n_jobs=-2"], "hydra.launcher.n_jobs=-2: 3 jobs at a time, but GPUs: 2; expected 2"),
        (4, 4, [], None),
        (1, 4, ["hydra.launcher.n_jobs=4"], None),  # asked for
        (1, 4, ["trainer=cpu"], None),
        (0, 4, [], None),
    ],
)
def test_more_joblib_workers_than_gpus_are_refused_unless_asked_for(monkeypatch, gpus, cores, arguments, refused):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr("joblib.effective_n_jobs", lambda n_jobs: n_jobs if n_jobs > 0 else cores + 1 + n_jobs)
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        overrides = ["hydra/launcher=joblib", *arguments]
        config = compose("config", overrides, return_hydra_config=True)
    with nullcontext() if refused is None else pytest.raises(SystemExit, match=f"^{refused}"):
        Leaderboard().on_multirun_start(config)


def test_a_sweep_with_too_many_workers_ends_before_its_jobs(in_process, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("joblib.effective_n_jobs", lambda n_jobs: 8)
    where = [f"hydra.sweep.dir={tmp_path}/sweep", "hydra/launcher=joblib", "trainer=default"]
    code, output = in_process("-m", *TINY, *where, "seed=0,1")
    assert code == 1 and "hydra.launcher.n_jobs=-1: 8 jobs at a time" in output and "Traceback" not in output
    assert not (tmp_path / "sweep").exists()


def test_optuna_looks_for_a_learning_rate(sweep):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs pip install -e '.[optuna]'")
    searched = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.direction=maximize"]
    code, output, rows = sweep(*searched, "optimizer.lr=interval(1e-4,1e-2)", "trainer.max_epochs=1")
    assert code == 0, output
    rates = [float(row["optimizer.lr"]) for row in rows]
    assert len(set(rates)) == 3 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    best = max(float(row["val/acc_best"]) for row in rows)
    found = OmegaConf.load(sweep.folder / "optimization_results.yaml")
    assert found.best_value == pytest.approx(best) and found.best_params["optimizer.lr"] in rates


def test_optuna_without_a_finished_job_ends_with_the_leaderboard(sweep):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs pip install -e '.[optuna]'")
    searched = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.direction=maximize"]
    code, output, rows = sweep(*searched, "optimizer.lr=interval(1e30,2e30)")
    assert code == 1 and "0 of 2 jobs in" in output and "Traceback" not in output, output
    assert [row["state"] for row in rows] == ["failed", "failed"]


def test_an_error_of_the_sweep_itself_is_not_hidden(tmp_path):
    """Hydra 1.4 calls the end of a sweep also then; there is no job, which otherwise ends with exit code 1."""
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    with pytest.raises(ZeroDivisionError):
        try:
            raise ZeroDivisionError
        finally:
            Leaderboard().on_multirun_end(config)
    with pytest.raises(SystemExit):
        Leaderboard().on_multirun_end(config)
