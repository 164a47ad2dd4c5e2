"""`python train.py find_lr=true`."""

import csv
import json

import pytest
import yaml

SIZES = ["data.image_size=32", "data.train_per_class=20", "data.val_per_class=8", "data.test_per_class=8"]
TINY = ["data=cartoons", *SIZES, "trainer=cpu", "trainer.max_epochs=1", "trainer.precision=32-true"]
TINY += ["model.channels=[8]", "model.dense=[16]", "optimizer=adamw", "scheduler=one_cycle"]


def rows(folder):
    with open(folder / "epochs.csv", newline="", encoding="utf-8") as file:
        return [{key: row[key] for key in row if key != "seconds"} for row in csv.DictReader(file)]


def test_search_then_training_in_its_folder_or_in_another(tmp_path, in_process):
    folder, cache = tmp_path / "run", f"data.cache_dir={tmp_path}/cache"
    code, output = in_process(*TINY, cache, "find_lr=true", f"hydra.run.dir={folder}")
    assert code == 0 and "suggest" in output and f"{folder}/lr_find.png" in output, output
    names = {"config.yaml", "provenance.json", "split.csv", "train.log", "lr_find.png", "lr_find.json", ".lock"}
    assert {path.name for path in folder.iterdir()} == names
    suggestion = json.loads((folder / "lr_find.json").read_text())["suggestion"]
    assert suggestion is None or f"optimizer.lr={suggestion:.1e}" in output

    code, output = in_process(f"resume={folder}")
    assert code == 1 and "trained nothing" in output and f"rerun={folder} find_lr=false" in output, output
    again = [f"rerun={folder}", "find_lr=false", "optimizer.lr=1e-3", f"hydra.run.dir={tmp_path}/other"]
    code, output = in_process(*again)
    assert code == 0 and yaml.safe_load((tmp_path / "other" / "config.yaml").read_text())["optimizer"]["lr"] == 1e-3
    code, output = in_process(*TINY, cache, "optimizer.lr=1e-3", f"hydra.run.dir={folder}")
    assert code == 0 and (folder / "metrics.json").exists(), output
    assert rows(folder) == rows(tmp_path / "other")
    code, output = in_process(*TINY, cache, "find_lr=true", f"hydra.run.dir={folder}")
    assert code == 1 and "find_lr was False, is True" in output, output


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["find_lr=1"], "find_lr=1: expected true or false"),
        (["-m", "seed=0", "find_lr=true"], "find_lr=true: trains nothing that a sweep could compare; leave out -m"),
    ],
)
def test_what_the_finder_does_not_do_is_refused(tmp_path, in_process, arguments, message):
    where = [f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
    code, output = in_process(*arguments, *TINY, f"data.cache_dir={tmp_path}/cache", *where)
    assert code == 1 and message in output and "Traceback" not in output, output
