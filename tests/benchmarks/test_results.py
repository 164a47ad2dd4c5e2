"""benchmarks/results.py and sweeps.py: from the runs of sweeps to docs/results.md and the README's table."""

import json
import re
from statistics import mean, stdev
from types import SimpleNamespace

import epoch
import pytest
from hydra import compose, initialize_config_dir

from benchmarks import results, sweeps
from transfer_learning.cli.project import PROJECT

STORED = json.loads((PROJECT / "docs" / "results.json").read_text("utf-8"))


def test_the_readme_and_the_page_are_what_the_script_makes_of_the_stored_results():
    readme = (PROJECT / "README.md").read_text("utf-8")
    assert results.with_table(readme, STORED) == readme and "| basic CNN" in readme.replace("1 basic", "basic")
    assert (PROJECT / "docs" / "results.md").read_text("utf-8") == results.page(STORED)


def test_stored_results_are_of_one_commit_without_changes():
    rows = [row for found in STORED["sweeps"].values() for row in found]
    assert {row["commit"] for row in rows} == {STORED["commit"]} and re.fullmatch("[0-9a-f]{10}", STORED["commit"])


@pytest.mark.parametrize("name", sweeps.SWEEPS)
def test_each_sweep_composes(name):
    first = [each.split(",")[0] for each in sweeps.SWEEPS[name].overrides]
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        assert compose("config", [*first, *["model.weights=x"] * sweeps.SWEEPS[name].takes_weights]).seed == 0


def test_names_choose_what_is_measured_and_may_stand_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "vgg16.pth").touch()
    commands = []
    monkeypatch.setattr(
        sweeps.subprocess, "run", lambda command, **_: commands.append(command) or SimpleNamespace(returncode=1)
    )
    given = [str(tmp_path), "--photographs", "photos", "--weights", str(tmp_path), "best", "speed"]
    monkeypatch.setattr("sys.argv", ["sweeps.py", *given])
    with pytest.raises(SystemExit) as ended:
        sweeps.main()
    (_, *best), (_, *speed) = commands
    assert best[:3] == ["train.py", "-m", "sweep=best"] and f"model.weights={tmp_path}" in best
    assert speed[: 1 + len(sweeps.SPEED)] == ["benchmarks/epoch.py", *sweeps.SPEED]
    assert speed[-2:] == ["--json", f"{tmp_path}/speed.json"] and ended.value.code == 2  # both failed


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of two sweeps: three seeds of system 4, one of the others' first; and an unfinished run."""

    def add(sweep, overrides, accuracy, seconds, commit="0123456789abcdef", finished=True):
        run = tmp_path / "runs" / sweep / ",".join(overrides)
        run.mkdir(parents=True)
        metrics = {"monitor": "val/acc", "monitor_mode": "max", "monitor_best": accuracy, "val/acc_best": accuracy}
        metrics |= {"test/acc": accuracy - 0.1, "images_val": 100, "images_test": 100, "epochs": 2, "device": "cpu"}
        metrics |= {"seconds": seconds, "seconds_features": 7.0, "precision": "32-true"}
        attempt = {"started": "now", "git_commit": commit, "git_dirty": False, "packages": {"torch": "2.9"}}
        attempt |= {"machine": {"processor": "A chip"}, "threads": 2}
        (run / "train.log").write_text("")
        (run / "provenance.json").write_text(json.dumps([attempt]))
        config = {"overrides": overrides, "reference": {"val/acc_best": 0.8923}}
        (run / "config.yaml").write_text(json.dumps(config))
        (run / "epochs.csv").write_text(f"epoch,val/acc,seconds\n1,0.5,{seconds - 9}\n2,{accuracy},{seconds + 9}\n")
        if finished:
            (run / "metrics.json").write_text(json.dumps(metrics))
        return tmp_path / "runs"

    return add


def test_seeds_become_a_mean_with_its_deviation_and_seconds_are_those_of_seed_0(folder):
    accuracies = [0.96, 0.97, 0.99]
    for seed, accuracy in enumerate(accuracies):
        runs = folder("tutorial", [f"seed={seed}", "system=vgg16_frozen"], accuracy, 50.0 + 100 * seed)
    folder("tutorial", ["seed=3", "system=vgg16_frozen"], 0.1, 50.0, finished=False)
    folder("fresh_images", ["seed=0", "system=vgg16_frozen_augmented"], 0.9, 600.0)
    found = json.loads(json.dumps(results.collect(runs)))
    assert found["commit"] == "0123456789"
    assert found["curves"]["4 head on frozen VGG16"]["seed=2"] == [0.5, 0.99]
    table = results.systems_table(found)
    (row,) = [line for line in table.splitlines() if line.startswith("| 4")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["2", f"{mean(accuracies):.3f} ± {stdev(accuracies):.3f}"]
    assert cells[4:] == ["0.892", f"**{mean(accuracies) - 0.1:.3f} ± {stdev(accuracies):.3f}**", "7 + 100"]
    assert "0.900 (seeds: 1)" in table and "all five" not in table
    assert "Not measured yet: System 5 on stored features" in results.page(found)


def test_speed_is_shown_in_seconds_and_relative_to_this_project():
    seconds = {"project": [2.0, 4.0, 3.0], "bare": [2.7, 2.4], "template, bf16-mixed": [9.0]}
    other = {"project": [1.0]}
    table = results.speed_table({"machine": "A chip", "rounds": 3, "rows": {"basic": seconds, "finetuned": other}})
    assert table.startswith("600 training and 200 validation images, 3 rounds") and "| finetuned " in table
    lines = table.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| basic CNN")]
    assert rows == [
        ["basic CNN", "this project", "3.00 (2.00–4.00)", "1.00"],
        ["basic CNN", "bare PyTorch loop", "2.55 (2.40–2.70)", "0.85"],
        ["basic CNN", "template, bf16-mixed", "9.00 (9.00–9.00)", "3.00"],
    ]


def test_the_benchmark_of_speed_knows_the_rows_and_variants_of_the_table(monkeypatch):
    monkeypatch.setattr("sys.argv", ["epoch.py", *sweeps.SPEED, "data.root=photographs"])
    options, given = epoch.parsed()
    assert given == ["data.train_per_class=300", "data.val_per_class=100", "data.root=photographs"]
    monkeypatch.setattr(epoch, "find_spec", lambda name: True)
    monkeypatch.setattr(epoch.inputs, "arrays", lambda *_: "arrays.npz")
    found = {name for row in options.rows for name in epoch.variants(row, given, "folder", options)}
    assert set(options.variants) <= found


def test_runs_of_several_commits_are_refused(folder):
    folder("best", ["seed=0", "experiment=best"], 0.9, 1.0)
    runs = folder("best", ["seed=1", "experiment=best"], 0.9, 1.0, commit="fedcba9876543210")
    with pytest.raises(SystemExit, match="one commit.* 0123456789, fedcba9876"):
        results.collect(runs)


@pytest.mark.parametrize(
    ("speed", "named"), [({"commit": "fedcba9876", "rows": {}}, "fedcba9876"), ({"rows": {}}, "none in speed.json")]
)
def test_a_speed_table_of_another_commit_is_refused(folder, speed, named):
    runs = folder("best", ["seed=0", "experiment=best"], 0.9, 1.0)
    (runs / "speed.json").write_text(json.dumps(speed))
    with pytest.raises(SystemExit, match=f"measurements need one commit.* {named}"):
        results.collect(runs)
    (runs / "speed.json").write_text(json.dumps({"commit": "0123456789", "rows": {}}))
    assert results.collect(runs)["speed"]["rows"] == {}


def test_runs_are_added_to_the_stored_ones_of_their_commit_and_replace_those_of_their_seed(folder):
    system = ["system=vgg16_frozen"]
    folder("tutorial", ["seed=0", *system], 0.5, 50.0)
    stored = results.collect(folder("tutorial", ["seed=1", *system], 0.6, 50.0))
    stored["speed"] = {"rows": {}}
    (runs := stored["sweeps"]["tutorial"])[0]["machine"] = "Another chip"
    found = {**stored, "sweeps": {"tutorial": [{**runs[1], "test/acc": "0.7"}], "best": [runs[0]]}, "curves": {}}
    merged = results.merge(stored, {**found, "speed": None})
    accuracies = {(row["repetition"], row["test/acc"], row["machine"]) for row in merged["sweeps"]["tutorial"]}
    assert accuracies == {("seed=0", "0.4", "Another chip"), ("seed=1", "0.7", "A chip, threads: 2")}
    assert len(merged["sweeps"]["best"]) == 1 and merged["speed"] == stored["speed"]
    assert set(merged["curves"]["4 head on frozen VGG16"]) == {"seed=0", "seed=1"}
    assert results.merge({}, found) == found
    with pytest.raises(SystemExit, match="docs/results.json is of commit fedcba9876, these runs are of 0123456789"):
        results.merge({**stored, "commit": "fedcba9876"}, found)


def test_a_page_that_cannot_be_made_leaves_the_stored_results(folder, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(results, "DOCS", tmp_path / "docs")
    with pytest.raises(SystemExit, match="needs a run with seed=0"):
        results.main([str(folder("best", ["seed=0", "experiment=best"], 0.9, 1.0))])
    assert list((tmp_path / "docs").iterdir()) == []


def test_the_tutorials_preprocessing_is_named_beside_the_systems(folder):
    folder("tutorial", ["seed=0", "system=vgg16_frozen"], 0.9, 50.0)
    for seed, accuracy in enumerate((0.7, 0.8)):
        given = [f"seed={seed}", "model.preprocess=tutorial"]
        folder("preprocessing", [*given, "data.interpolation=nearest"], accuracy, 50.0)
        runs = folder("preprocessing", [*given, "data.interpolation=bilinear"], 0.1, 50.0)
    assert "with the tutorial's, system 4 has 0.750 (validation)" in results.systems_table(
        results.collect(runs)
    ).replace("\n", " ")


def test_the_minutes_of_all_five_are_shown_if_one_machine_trained_them_and_other_machines_are_named(folder):
    for system in sweeps.SYSTEMS:
        runs = folder(system.sweep, ["seed=0", *system.overrides.split()], 0.9, 593.0)
    found = results.collect(runs)
    found["sweeps"]["fresh_images"][0]["seconds_per_epoch"] = "1193"
    # five systems, 7 s of features and two epochs with a median of 593 s each; the sixth row's last 600 s longer
    shown = results.systems_table(found).replace("\n", " ")
    assert f"With 8 augmented views, all five need {5 * (7 + 2 * 593) / 60:.0f} minutes" in shown
    assert f"in each epoch, all five need {5 * (7 + 2 * 593) / 60 + 20:.0f} minutes" in shown
    found["sweeps"]["tutorial"][0]["machine"] = "Another chip"
    found["sweeps"]["stored_views"][0]["repetition"] = "seed=1"
    table = results.systems_table(found)
    assert table.count("not measured") == 1
    assert (
        "Rows that name another machine, and some other seeds, were measured on A chip, threads: 2, torch 2.9"
        in table.replace("\n", " ")
    )
    assert "all five" not in table and table.count("(A chip)") == 4
