import csv
import json

import pytest

from transfer_learning.reporting.run_summary import curves, summary, write_results

EPOCHS = [
    {"epoch": n, "train/acc": n / 10, "val/acc": n / 20, "train/loss": 1 / n, "val/loss": 2 / n, "seconds": 1.0}
    for n in range(1, 5)
]
METRICS = {
    "val/acc_best": 0.75, "epoch_best": 3, "epochs": 4, "test/acc": 0.71, "test/acc_low": 0.68, "test/acc_high": 0.74,
    "images_test": 1000, "seconds": 65.4, "seconds_to_first_step": 7.25, "device": "cpu (x86_64)",
    "precision": "32-true", "monitor": "val/acc", "monitor_best": 0.75,
}  # fmt: skip


@pytest.mark.parametrize("monitor", [None, "val/acc", "val/loss", "train/loss"])
def test_curves_show_accuracy_and_loss(monitor):
    accuracy, loss = curves(EPOCHS, monitor).axes
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation"]
    assert list(accuracy.lines[1].get_xdata()) == [1, 2, 3, 4]
    assert list(accuracy.lines[1].get_ydata()) == [row["val/acc"] for row in EPOCHS]
    assert list(loss.lines[0].get_ydata()) == [row["train/loss"] for row in EPOCHS]
    assert [axes.get_title() for axes in (accuracy, loss)] == ["Accuracy", "Loss"]


def test_epochs_are_whole_numbers_also_of_a_short_run():
    for axes in curves(EPOCHS[:2]).axes:
        assert all(tick == round(tick) for tick in axes.get_xticks())


def test_curves_show_another_monitored_metric():
    rows = [row | {"train/f1": 0.1, "val/f1": row["val/acc"] / 2} for row in EPOCHS]
    del rows[1]["val/f1"]  # an epoch without validation
    _, _, f1 = curves(rows, "val/f1").axes
    assert f1.get_title().lower() == "f1"
    assert list(f1.lines[0].get_ydata()) == [0.1] * 4
    assert list(f1.lines[1].get_xdata()) == [1, 3, 4]
    assert list(f1.lines[1].get_ydata()) == [EPOCHS[n]["val/acc"] / 2 for n in (0, 2, 3)]


@pytest.mark.parametrize("monitor", [{}, {"monitor": "val/loss"}])
def test_files_of_a_run(tmp_path, monitor):
    metrics = {"test/acc": 0.5, "seconds_per_epoch": None} | monitor
    write_results(tmp_path, metrics, EPOCHS)
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    with open(tmp_path / "epochs.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    assert rows == EPOCHS
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "curves.png", "epochs.csv"}


def test_summary_has_results_time_and_how_to_see_curves(tmp_path):
    assert f"curves: {tmp_path}/curves.png" in summary(tmp_path, METRICS)  # without TensorBoard's file
    (tmp_path / "my run").mkdir()
    (tmp_path / "my run" / "events.out.tfevents.1").touch()
    text = summary(tmp_path / "my run", METRICS)
    for expected in (
        "best validation accuracy 0.7500 in epoch 3 of 4",
        "0.7100 on 1000 images",
        "0.6800 to 0.7400",
        "65 s on cpu",
        "began 7.2 s after the start",
        f"tensorboard --logdir '{tmp_path}/my run'",
    ):
        assert expected in text


def test_summary_names_the_monitored_metric():
    text = summary("outputs/run", METRICS | {"monitor": "val/loss", "monitor_best": 0.123})
    assert "best validation loss 0.1230 in epoch 3 of 4" in text
    assert "validation accuracy of that epoch 0.7500" in text and "best validation accuracy" not in text


def test_summary_without_a_test():
    untested = METRICS | dict.fromkeys(("test/acc", "test/acc_low", "test/acc_high", "images_test"))
    text = summary("outputs/my run", untested)
    assert "test accuracy" not in text and "None" not in text
