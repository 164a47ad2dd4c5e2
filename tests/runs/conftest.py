"""Folders of runs without training."""

import csv
import json

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from transfer_learning.reporting.prediction_table import PredictionTable, write_predictions

CONFIG = {
    "seed": 0,
    "choices": {"model": "basic_cnn", "optimizer": "rmsprop"},
    "model": {"dropout": 0.0},
    "data": {"train_per_class": 100, "augment": False, "order_seed": "${seed}", "cache_dir": "cache"},
    "optimizer": {"lr": 0.001},
}


@pytest.fixture
def add_run(tmp_path):
    """add_run(name, wrong, *overrides): the folder tmp_path/runs/NAME of a finished run.

    Of its 40 validation images the first `wrong` ones are wrong, of its 20 test images half as many. `images` changes
    the images, `classes` their names; `without` names files that are not written; `config` are further keys, `metrics`
    further metrics.
    """

    def add(
        name,
        wrong,
        *overrides,
        images="image",
        classes=("cat", "dog"),
        without=(),
        monitor="val/acc",
        config=None,
        metrics=None,
    ):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        settings = [text.replace("model=", "choices.model=") for text in overrides]
        made = OmegaConf.merge(CONFIG, config or {}, OmegaConf.from_dotlist(settings))
        made = OmegaConf.merge(made, {"overrides": list(overrides), "hydra": {}})
        extra = metrics or {}
        metrics = {"monitor": monitor, "monitor_mode": "max", "monitor_best": 0.5, "val/acc_best": 1 - wrong / 40}
        metrics |= {"test/acc": 1 - wrong // 2 / 20, "seconds": 12.0, "seconds_per_epoch": 4.0, "epochs": 3}
        metrics |= {"epoch_best": 2, "images_val": 40, "images_test": 20} | extra
        rows = [{"epoch": n, "train/acc": 0.6, "val/acc": 0.5, "train/loss": 0.6, "val/loss": 0.7} for n in (1, 2, 3)]
        contents = {"train.log": "", "config.yaml": OmegaConf.to_yaml(made), "metrics.json": json.dumps(metrics)}
        for file in set(contents) - set(without):
            (folder / file).write_text(contents[file])
        with open(folder / "epochs.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        write_predictions(folder / "predictions.csv", [_table("val", wrong, 40, images, classes),
                                                       _table("test", wrong // 2, 20, images, classes)])  # fmt: skip
        for picture in ("mistakes", "gradcam", "reliability"):
            for split in ("val", "test"):
                Image.new("RGB", (40, 30), "red").save(folder / f"{picture}-{split}.png")
        for file in without:
            (folder / file).unlink(missing_ok=True)
        return folder

    return add


def _table(split, wrong, total, images, classes):
    labels = np.arange(total) % 2
    predicted = np.where(np.arange(total) < wrong, 1 - labels, labels)
    names = [f"{images} {split} {n}" for n in range(total)]
    return PredictionTable(names, names, [split] * total, labels, np.eye(2, dtype=np.float32)[predicted], classes)
