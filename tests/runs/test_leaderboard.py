import csv
import json

import pytest
from omegaconf import OmegaConf

from transfer_learning.leaderboard import COLUMNS, Leaderboard, jobs


@pytest.fixture
def sweep(tmp_path):
    """Five jobs: two finished, one failed after it had once finished, one killed, one damaged; and two folders that are no jobs."""
    for name in ("seed=0", "seed=1", "seed=2", "seed=3", "seed=4", ".submitit", "notes"):
        (tmp_path / name).mkdir()
        if "seed" in name:
            (tmp_path / name / "train.log").touch()
    for name, accuracy in (("seed=0", 0.75), ("seed=1", 0.875), ("seed=2", 0.9)):
        metrics = {"val/acc_best": accuracy, "test/acc": accuracy - 0.25, "seconds": 12.345}
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "seed=4" / "metrics.json").write_text("{")
    (tmp_path / "seed=2" / "FAILED").write_text("another config: a | b\nsecond line\n")
    return tmp_path


def test_the_best_comes_first_and_what_has_not_finished_last(sweep):
    assert jobs(sweep) == [
        ("seed=1", "finished", 0.875, 0.625, 12.3, None),
        ("seed=0", "finished", 0.75, 0.5, 12.3, None),
        ("seed=2", "failed", None, None, None, "another config: a | b"),
        ("seed=3", "unfinished", None, None, None, None),
        ("seed=4", "failed", None, None, None, "metrics.json is damaged"),
    ]


def test_the_sweep_ends_with_a_table_two_files_and_an_exit_code(sweep, capsys, monkeypatch):
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    with pytest.raises(SystemExit) as end:
        Leaderboard().on_multirun_end(config)
    printed = capsys.readouterr().out
    assert end.value.code == 1 and f"2 of 5 jobs in {sweep} finished" in printed
    with open(sweep / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [row["overrides"] for row in rows] == [f"seed={n}" for n in (1, 0, 2, 3, 4)]
    assert rows[0]["test/acc"] == "0.625" and rows[2]["reason"] == "another config: a | b"
    table = (sweep / "leaderboard.md").read_text()
    assert table in printed
    assert {line.replace("\\|", "").count("|") for line in table.strip().split("\n")} == {len(COLUMNS) + 1}

    for name in ("seed=2", "seed=3", "seed=4"):
        (sweep / name / "FAILED").unlink(missing_ok=True)
        (sweep / name / "metrics.json").write_text((sweep / "seed=0" / "metrics.json").read_text())
    Leaderboard().on_multirun_end(config)  # all have finished, so it does not exit

    monkeypatch.setattr("transfer_learning.leaderboard.replacing", full_disk)
    with pytest.raises(SystemExit) as end:  # an exception would become a warning of Hydra's
        Leaderboard().on_multirun_end(config)
    assert "No space left" in end.value.code and "5 of 5" in capsys.readouterr().out


def full_disk(path):
    raise OSError(28, "No space left on device")
