import json

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning import load
from transfer_learning.callbacks.history import History
from transfer_learning.callbacks.layer_table import LayerTable
from transfer_learning.callbacks.pictures import Pictures
from transfer_learning.errors import UserError
from transfer_learning.training import train


@pytest.fixture
def finished(tmp_path, small_data, small_model, quiet_trainer):
    """A run of three epochs, from Python alone: (folder, data, metrics)."""
    data, folder = small_data(augment=True), tmp_path / "run"
    checkpoints = dict(dirpath=folder / "checkpoints", enable_version_counter=False)
    trainer = quiet_trainer(
        max_epochs=3,
        default_root_dir=folder,
        enable_checkpointing=True,
        logger=TensorBoardLogger(folder, name="", version="", default_hp_metric=False),
        callbacks=[
            LayerTable(),
            Pictures(),
            ModelCheckpoint(filename="best", monitor="val/acc", mode="max", save_weights_only=True, **checkpoints),
            ModelCheckpoint(filename="last", **checkpoints),
        ],
    )
    return folder, data, train(data, small_model(), trainer, {"seed": 0, "optimizer": {"lr": 0.01}})


def accuracy(path, data, part):
    """Of a checkpoint on a part, in plain torch."""
    rows = data.parts[part]
    with torch.no_grad():
        probabilities = load(path)(torch.from_numpy(data.pixels[rows]).permute(0, 3, 1, 2) / 255)
    return float(np.mean(probabilities.argmax(1).numpy() == data.labels[rows]))


def test_metrics_are_those_of_the_checkpoints(finished):
    folder, data, metrics = finished
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert metrics["test/acc"] == pytest.approx(accuracy(best, data, "test"))
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best, data, "val"))
    assert metrics["val/acc_last"] == pytest.approx(accuracy(last, data, "val"))
    assert torch.load(best, weights_only=True)["epoch"] + 1 == metrics["epoch_best"]
    assert torch.load(last, weights_only=True)["epoch"] + 1 == metrics["epochs"] == 3
    assert [metrics[f"images_{part}"] for part in ("train", "val", "test")] == [24, 10, 10]
    assert 0 < metrics["seconds_per_epoch"] < metrics["seconds"]
    assert (folder / "curves.png").stat().st_size > 5_000


def test_tensorboard_shows_curves_over_epochs_pictures_and_results(finished):
    folder, _, metrics = finished
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    for tag in ("train/loss", "train/acc", "val/loss", "val/acc", "lr"):
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3]
    assert max(event.value for event in events.Scalars("val/acc")) == pytest.approx(metrics["val/acc_best"])
    assert tags["images"] == ["augmentation"]
    assert {"layers/text_summary", "custom_scalars__config__"} <= set(tags["tensors"])
    assert [event.value for event in events.Scalars("test/acc")][-1] == pytest.approx(metrics["test/acc"])
    assert not {"hp_metric", "epoch", "step"} & set(tags["scalars"])
    assert max(event.step for tag in tags["scalars"] for event in events.Scalars(tag)) == 3
    assert {"_hparams_/experiment", "_hparams_/session_start_info"} <= set(events.PluginTagToContent("hparams"))


def test_the_epoch_reported_is_the_epoch_tested(tmp_path, small_data, small_model, quiet_trainer):
    """The best by another measure, named after a checkpoint that measures nothing."""
    data = small_data()
    last = ModelCheckpoint(tmp_path, filename="last")
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", mode="max", save_weights_only=True)
    metrics = train(
        data, small_model(), quiet_trainer(max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[last, best])
    )
    assert torch.load(best.best_model_path, weights_only=True)["epoch"] + 1 == metrics["epoch_best"]
    assert metrics["test/acc"] == pytest.approx(accuracy(best.best_model_path, data, "test"))
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best.best_model_path, data, "val"))


def test_epochs_without_validation(tmp_path, small_data, small_model, quiet_trainer):
    trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path, check_val_every_n_epoch=2)
    metrics = train(small_data(), small_model(), trainer)
    assert (metrics["epochs"], metrics["epoch_best"]) == (3, 2)
    rows = next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows
    assert ["val/acc" in row for row in rows] == [False, True, False]


@pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"limit_test_batches": 0}, {"max_epochs": 0}])
def test_nothing_to_validate_or_test_is_said_in_one_line(tmp_path, small_data, small_model, settings, quiet_trainer):
    with pytest.raises(UserError, match="expected"):
        train(small_data(), small_model(), quiet_trainer(**{"max_epochs": 3, "default_root_dir": tmp_path} | settings))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_any_precision(tmp_path, small_data, small_model, precision, quiet_trainer):
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, precision=precision, callbacks=[LayerTable(), Pictures()])
    assert train(small_data(augment=True), small_model(), trainer)["precision"] == precision


def test_without_a_checkpoint_callback_the_last_epoch_is_tested(tmp_path, small_data, small_model, quiet_trainer):
    metrics = train(small_data(), small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    assert metrics["val/acc_best"] == metrics["val/acc_last"] and metrics["seconds_per_epoch"] is None
