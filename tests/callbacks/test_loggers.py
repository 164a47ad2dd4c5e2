import csv
import io
import os
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning.callbacks.layer_table import LayerTable
from transfer_learning.callbacks.loggers import LoggerAdapter, TensorBoardAdapter, adapter, adapters
from transfer_learning.callbacks.pictures import Pictures
from transfer_learning.engine.training import train


class OwnLogger(Logger):
    """A logger that keeps everything in memory."""

    name, version = "own", 0

    def __init__(self):
        self.metrics, self.settings = [], {}

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, params, *arguments, **settings):
        self.settings |= params


@pytest.fixture
def run(tmp_path, small_data, small_model, quiet_trainer):
    """run(logger): trains for two epochs with the callbacks that show something. Returns the metrics."""

    def make(logger):
        callbacks = [LayerTable(), Pictures()]
        trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path, logger=logger, callbacks=callbacks)
        settings = {"seed": 0, "optimizer": {"lr": 0.01}}
        return train(small_data(augment=True), small_model(), trainer, settings)

    return make


def test_adapters_of_known_loggers(tmp_path, quiet_trainer):
    class OwnTensorBoard(TensorBoardLogger):
        pass

    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path), OwnTensorBoard(tmp_path), OwnLogger()]
    found = adapters(quiet_trainer(logger=loggers))
    assert [type(each) for each in found] == [TensorBoardAdapter, LoggerAdapter, TensorBoardAdapter, LoggerAdapter]
    assert [each.logger for each in found] == loggers


def test_no_adapters_without_loggers_or_on_other_processes(quiet_trainer):
    assert adapters(quiet_trainer(logger=False)) == []
    assert adapters(SimpleNamespace(is_global_zero=False, loggers=[OwnLogger()])) == []


def test_tensorboard_shows_text_image_charts_and_results(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="", default_hp_metric=False)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    board = adapter(logger)
    board.text("layers", "a  b\nc  d")
    board.image("augmentation", pixels)
    board.charts({"accuracy": ["train/acc", "val/acc"]})
    board.results({"seed": 3}, {"test/acc": 0.75})
    board.finish()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    text = events.Tensors("layers/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "    a  b\n    c  d"  # Markdown for a monospaced font
    assert events.Tags()["images"] == ["augmentation"]
    encoded = events.Images("augmentation")[0].encoded_image_string
    assert np.array_equal(np.array(Image.open(io.BytesIO(encoded))), pixels)
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"^train/acc$" in layout and b"^val/acc$" in layout
    assert [event.value for event in events.Scalars("test/acc")] == [0.75]
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_training_and_validation_are_two_runs_with_charts_of_the_same_names(tmp_path, run, next_second):
    def scalars(split):
        events = EventAccumulator(str(tmp_path / split))
        events.Reload()
        return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}

    run(TensorBoardLogger(tmp_path, name="", version="", purge_step=0))
    next_second()
    run(TensorBoardLogger(tmp_path, name="", version="", purge_step=0))  # as if resumed from the first epoch
    both = scalars("")
    for split in ("train", "val"):
        of_split = scalars(split)
        assert set(of_split) == {"acc", "loss"}
        for name, points in of_split.items():
            assert points == both[f"{split}/{name}"] and [step for step, _ in points] == [1, 2]


def test_csv_has_metrics_of_each_epoch_settings_and_results(tmp_path, run):
    metrics = run(CSVLogger(tmp_path, name="", version=""))
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows if row["val/loss"]}
    assert list(losses) == [1, 2]
    assert [float(row["test/acc"]) for row in rows if row["test/acc"]][-1] == pytest.approx(metrics["test/acc"])
    best = [float(row["val/acc_best"]) for row in rows if row.get("val/acc_best")]
    assert best == [pytest.approx(metrics["val/acc_best"])]
    assert yaml.safe_load((tmp_path / "hparams.yaml").read_text())["seed"] == 0


def test_logger_without_an_adapter_gets_metrics_settings_and_results(run):
    logger = OwnLogger()
    metrics = run(logger)
    by_step = {step: values for step, values in logger.metrics if "val/acc" in values}
    assert list(by_step) == [1, 2] and by_step[2]["val/acc"] == pytest.approx(metrics["val/acc_last"])
    results = {key: metrics[key] for key in ("val/acc_best", "test/acc")}
    assert logger.metrics[-1][1] == results and logger.settings == {"seed": 0, "optimizer": {"lr": 0.01}}


def test_registered_adapter_of_an_own_logger(run):
    class OtherLogger(OwnLogger):
        pass

    shown = []

    class OtherAdapter(LoggerAdapter):
        def text(self, name, text):
            shown.append((name, text))

        def image(self, name, pixels):
            shown.append((name, pixels.shape[2]))

        def charts(self, charts):
            shown.append(("charts", charts))

        def results(self, settings, results, epochs=None):
            shown.append((settings, results))

    adapter.register(OtherLogger, OtherAdapter)
    metrics = run(OtherLogger())
    assert type(adapter(OwnLogger())) is LoggerAdapter
    layers, charts, augmentation, results = shown
    assert layers[0] == "layers" and "trainable parameters" in layers[1]
    assert charts[1] == {"accuracy": ["acc"], "loss": ["loss"]}  # of the runs train and val
    assert augmentation == ("augmentation", 3)
    assert results[0]["seed"] == 0 and results[1]["test/acc"] == metrics["test/acc"]


def test_run_without_a_logger_or_with_several(tmp_path, run):
    run(False)
    own = OwnLogger()
    run([own, TensorBoardLogger(tmp_path, name="", version="")])
    assert "test/acc" in own.metrics[-1][1] and list(tmp_path.glob("events.out.*"))


def test_offline_run_of_weights_and_biases(tmp_path, run, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    from pytorch_lightning.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    logger = WandbLogger(save_dir=tmp_path, project="test", name="run", offline=True)
    metrics = run(logger)
    summary = dict(logger.experiment.summary)
    assert summary["val/acc_best"] == metrics["val/acc_best"] and summary["test/acc"] == metrics["test/acc"]
    assert logger.experiment.config["seed"] == 0 and {"layers", "augmentation", "val/loss", "lr"} <= set(summary)
    files = {os.path.relpath(path, tmp_path) for path in tmp_path.rglob("*.wandb")}
    adapter(logger).finish()
    assert len(files) == 1 and wandb.run is None
