import json

import pytest

from transfer_learning.runs.metrics import read_metrics
from transfer_learning.utilities.errors import UserError

METRICS = {
    "epochs": 5,
    "monitor": "val/acc",
    "monitor_mode": "max",
    "monitor_best": 0.5,
    "test/acc": None,
    "seconds": 1,
}


def test_numbers_that_were_written_as_text_are_numbers(tmp_path):
    assert read_metrics(tmp_path) is None
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"monitor_best": "0.25", "test/acc": "1", "more": [1]}))
    expected = METRICS | {"monitor_best": 0.25, "test/acc": 1.0, "val/acc_best": None, "more": [1]}
    assert read_metrics(tmp_path) == expected


@pytest.mark.parametrize("changes", [{"monitor_best": "high"}, {"epochs": None}, {"seconds": []}, {"test/acc": "x"}])
def test_wrong_values_are_named(tmp_path, changes):
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | changes))
    with pytest.raises(UserError, match=r"metrics\.json: damaged, or not the metrics of a run: \w+Error: "):
        read_metrics(tmp_path)


@pytest.mark.parametrize("content", [b"\xff{", b"[1]", b"1", b"{}", b'{"epochs": 5}'])
def test_other_content_is_named_with_a_way_out(tmp_path, content):
    (tmp_path / "metrics.json").write_bytes(content)
    with pytest.raises(UserError, match=r"metrics\.json: .*Move it away, and repeat the command\."):
        read_metrics(tmp_path)
