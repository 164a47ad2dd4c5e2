import json

import pytest
from scipy.stats import binomtest

from transfer_learning.report import curves, summary, wilson_interval, write_report

EPOCHS = [
    {"epoch": n, "train/acc": n / 10, "val/acc": n / 20, "train/loss": 1 / n, "val/loss": 2 / n, "seconds": 1.0}
    for n in range(1, 5)
]


@pytest.mark.parametrize("correct, total", [(0, 10), (7, 10), (10, 10), (965, 1000), (1, 3)])
def test_wilson_interval_is_scipys(correct, total):
    expected = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-5)


def test_curves_are_the_rows(tmp_path):
    accuracy, loss = curves(EPOCHS).axes
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation"]
    assert list(accuracy.lines[1].get_xdata()) == [1, 2, 3, 4]
    assert list(accuracy.lines[1].get_ydata()) == [row["val/acc"] for row in EPOCHS]
    assert list(loss.lines[0].get_ydata()) == [row["train/loss"] for row in EPOCHS]


def test_files(tmp_path):
    write_report(tmp_path, {"test/acc": 0.5, "seconds_per_epoch": None}, EPOCHS)
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test/acc": 0.5, "seconds_per_epoch": None}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "curves.png"}


def test_summary_tells_results_time_and_how_to_see_curves():
    metrics = {
        "val/acc_best": 0.75, "epoch_best": 3, "epochs": 4, "test/acc": 0.71, "test/acc_low": 0.68, "test/acc_high": 0.74,
        "images_test": 1000, "seconds": 65.4, "seconds_to_first_step": 7.25, "device": "cpu (x86_64)", "precision": "32-true",
    }  # fmt: skip
    text = summary("outputs/run", metrics)
    for part in (
        "0.7500 in epoch 3 of 4",
        "0.7100 on 1000 images",
        "0.6800 to 0.7400",
        "65 s on cpu",
        "began 7.2 s after the start",
        "tensorboard --logdir outputs/run",
    ):
        assert part in text
