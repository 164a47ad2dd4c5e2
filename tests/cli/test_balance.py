"""Classes of different sizes on the command line: `data.balance=`, and `monitor=` everywhere at once."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from transfer_learning.cli import shell
from transfer_learning.cli.job import suggest_balance
from transfer_learning.data.sources.cartoons import cartoon
from transfer_learning.reporting.prediction_table import read_predictions

OF_PREDICTIONS = {
    "balanced_acc": balanced_accuracy_score,
    "macro_f1": lambda labels, predicted: f1_score(labels, predicted, average="macro"),
}
SUGGESTION = "20 training images of cat, but 6 of dog: data.balance=sampler or data.balance=weights"


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """A folder of 40 cats and 12 dogs, half of which train."""
    folder = tmp_path_factory.mktemp("drawings")
    for code, (name, size) in enumerate({"cat": 40, "dog": 12}.items()):
        (folder / name).mkdir()
        for number in range(size):
            cartoon(code, f"{name} {number}").resize((32, 32)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def tiny(drawings, tmp_path):
    """The arguments of a short run."""
    shares = ["data.train_per_class=0.5", "data.val_per_class=0.25", "data.test_per_class=0.25"]
    data = ["data=image_folder", f"data.root={drawings}", *shares, "data.batch_size=8", "data.image_size=32"]
    model = ["model.channels=[4]", "model.dense=[16]", "optimizer.lr=1e-2", "trainer=cpu", "trainer.max_epochs=3"]
    return [*data, *model, "callbacks=[checkpoints]", "logger=none", f"data.cache_dir={tmp_path}/cache"]


def results(folder):
    """metrics.json, and epochs.csv as columns."""
    with open(folder / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {key: [float(row[key]) for row in rows] for key in rows[0]}
    return json.loads((folder / "metrics.json").read_text()), columns


@pytest.mark.parametrize("name, balance", [("balanced_acc", "sampler"), ("macro_f1", "weights"), ("loss", "weights")])
def test_monitor_alone_chooses_the_best_epoch_stops_early_and_is_tested(tiny, tmp_path, in_process, name, balance):
    early = ["callbacks=[evaluation,checkpoints,early_stopping]", "callbacks.early_stopping.patience=2"]
    command = [*tiny, *early, f"data.balance={balance}", f"monitor=val/{name}", "trainer.max_epochs=12"]
    code, output = in_process(*command, f"hydra.run.dir={tmp_path}/run")
    assert code == 0 and SUGGESTION not in output, output
    metrics, columns = results(tmp_path / "run")
    values, best = columns[f"val/{name}"], np.argmin if name == "loss" else np.argmax
    assert (metrics["monitor"], metrics["monitor_mode"]) == (f"val/{name}", "min" if name == "loss" else "max")
    assert metrics["epoch_best"] == best(values) + 1 and metrics["monitor_best"] == values[best(values)]
    stopped = next((n for n in range(1, 13) if n - (best(values[:n]) + 1) == 2), 12)
    assert metrics["epochs"] == len(values) == stopped
    assert f"test/{name}" in metrics and f"of that epoch {metrics[f'test/{name}']:.4f}" in output
    if name in OF_PREDICTIONS:
        for split, expected in (("val", metrics["monitor_best"]), ("test", metrics[f"test/{name}"])):
            table = read_predictions(tmp_path / "run" / "predictions.csv").of(split)
            assert OF_PREDICTIONS[name](table.labels, table.predicted) == pytest.approx(expected)


@pytest.mark.slow
def test_sweep_is_sorted_by_the_monitor_and_returns_its_best_values(tiny, tmp_path, in_process, monkeypatch):
    returned, run = [], shell.run
    monkeypatch.setattr(shell, "run", lambda cfg: returned.append(run(cfg)) or returned[-1])
    where = f"hydra.sweep.dir={tmp_path}/sweep"
    command = ["-m", *tiny, where, "test=false", "seed=0,1", "monitor=val/acc,val/macro_f1"]
    code, output = in_process(*command)
    assert code == 0 and output.count(SUGGESTION) == 4, output
    with open(tmp_path / "sweep" / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(row["monitor"], float(row["monitor_best"])) for row in rows]
    assert found == sorted(found, key=lambda pair: (pair[0], -pair[1])) and len(found) == 4
    assert sorted(returned) == pytest.approx(sorted(value for _, value in found))
    by_folder = {row["folder"]: float(row["monitor_best"]) for row in rows}
    for folder, best in by_folder.items():
        metrics, columns = results(tmp_path / "sweep" / folder)
        assert best == metrics["monitor_best"] == max(columns[metrics["monitor"]])
        assert ("val/macro_f1" in columns) == (metrics["monitor"] == "val/macro_f1")
    returned.clear()
    code, output = in_process(*command)
    assert code == 0 and output.count("finished already") == 4 and sorted(returned) == sorted(by_folder.values())


@pytest.mark.slow
def test_rerun_and_resume_with_a_monitor(tiny, tmp_path, in_process):
    where = f"hydra.run.dir={tmp_path}/run"
    code, output = in_process(*tiny, where)
    assert code == 0 and output.count(SUGGESTION) == 1
    code, output = in_process(*tiny, where, "monitor=val/macro_f1")
    assert code == 1 and "has results of another config: monitor was val/acc, is val/macro_f1" in output
    code, output = in_process(f"rerun={tmp_path}/run", f"hydra.run.dir={tmp_path}/again", "monitor=val/macro_f1")
    assert code == 0, output
    (first, before), (metrics, columns) = results(tmp_path / "run"), results(tmp_path / "again")
    assert columns["val/loss"] == before["val/loss"] and metrics["monitor_best"] == max(columns["val/macro_f1"])
    assert first["monitor"] == "val/acc" and (metrics["monitor"], metrics["monitor_mode"]) == ("val/macro_f1", "max")
    code, output = in_process(f"resume={tmp_path}/again", "trainer.max_epochs=4")
    assert code == 0 and results(tmp_path / "again")[0]["epochs"] == 4, output
    back = ["monitor=val/loss", f"hydra.run.dir={tmp_path}/back"]
    code, output = in_process(f"rerun={tmp_path}/again", "trainer.max_epochs=3", *back)
    assert code == 0 and results(tmp_path / "back")[0]["monitor_mode"] == "min", output


def test_balance_changes_the_training_alone(tiny, tmp_path, in_process):
    columns = {}
    for balance in ("none", "sampler", "weights"):
        frozen = ["optimizer.lr=0", f"data.balance={balance}", f"hydra.run.dir={tmp_path}/{balance}"]
        code, output = in_process(*tiny, *frozen)
        assert code == 0 and output.count(SUGGESTION) == (balance == "none"), output
        columns[balance] = results(tmp_path / balance)[1]
    assert columns["none"]["val/loss"] == columns["sampler"]["val/loss"] == columns["weights"]["val/loss"]
    assert len({columns[balance]["train/loss"][0] for balance in columns}) == 3
    assert len(set(columns["sampler"]["train/loss"])) == 3  # each epoch shows other images


@pytest.mark.parametrize(
    "sizes, balance, expected",
    [
        ((31, 10), "none", "31 training images of a, but 10 of b"),
        ((10, 1_000, 31), "none", "1,000 training images of b, but 10 of a"),
        ((30, 10), "none", None),
        ((31, 10), "sampler", None),
        ((31, 10), "weights", None),
        ((10, 0, 20), "none", None),  # nothing balances a class without training images
    ],
)
def test_balance_is_suggested_where_a_class_has_more_than_three_times_the_images_of_another(
    caplog, sizes, balance, expected
):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    data = SimpleNamespace(labels=labels, splits={"train": np.arange(len(labels))}, class_names="abc", balance=balance)
    with caplog.at_level("INFO"):
        suggest_balance(data)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [expected] * bool(expected)
