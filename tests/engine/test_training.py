import csv
import json
import os
import shutil
from functools import partial, partialmethod
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning import load
from transfer_learning.callbacks.evaluation import Evaluation
from transfer_learning.callbacks.layer_table import LayerTable
from transfer_learning.callbacks.pictures import Pictures
from transfer_learning.data.augmentation.random_resized_crop import RandomResizedCrop
from transfer_learning.data.datamodule import ImageDataModule
from transfer_learning.data.preprocessing import Preprocessing
from transfer_learning.data.sources.cartoons import Cartoons, cartoon
from transfer_learning.engine.checkpoint_file import CheckpointFile
from transfer_learning.engine.lr_finder import find_learning_rate
from transfer_learning.engine.training import compile_network, frozen_part, train, undo_compilation
from transfer_learning.models.network import Frozen
from transfer_learning.optim.schedules import Cosine, OneCycle
from transfer_learning.reporting.prediction_table import read_predictions
from transfer_learning.utilities.errors import ArgumentError, UserError
from transfer_learning.utilities.files import read_checked_json
from transfer_learning.utilities.hardware import default_precision


@pytest.fixture
def finished(tmp_path, small_data, small_model, quiet_trainer):
    """A run of three epochs without the command line: (folder, data, metrics)."""
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


def accuracy(path, data, split):
    """Of a checkpoint on a split, in plain torch."""
    indices = data.splits[split]
    with torch.no_grad():
        probabilities = load(path)(torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2) / 255)
    return float(np.mean(probabilities.argmax(1).numpy() == data.labels[indices]))


def test_metrics_are_those_of_the_checkpoints(finished):
    folder, data, metrics = finished
    best, last = folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    assert metrics == json.loads((folder / "metrics.json").read_text())
    assert metrics["test/acc"] == pytest.approx(accuracy(best, data, "test"))
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best, data, "val"))
    assert metrics["val/acc_last"] == pytest.approx(accuracy(last, data, "val"))
    assert torch.load(best, weights_only=True)["epoch"] + 1 == metrics["epoch_best"]
    assert torch.load(last, weights_only=True)["epoch"] + 1 == metrics["epochs"] == 3
    assert [metrics[f"images_{split}"] for split in ("train", "val", "test")] == [24, 10, 10]
    assert 0 < metrics["seconds_per_epoch"] < metrics["seconds"]
    assert (folder / "curves.png").stat().st_size > 5_000


def test_tensorboard_shows_curves_over_epochs_figures_and_results(finished):
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


def test_without_a_checkpoint_the_last_epoch_is_reported_and_loggers_have_no_epoch_after_it(
    tmp_path, small_data, small_model, quiet_trainer
):
    """The last of three epochs has no validation of its own."""
    data, model = small_data(), small_model(learning_rate=0.05)
    logger = CSVLogger(tmp_path, name="", version="")
    settings = dict(max_epochs=3, check_val_every_n_epoch=2, logger=logger, default_root_dir=tmp_path)
    metrics = train(data, model, quiet_trainer(**settings))
    assert metrics["epoch_best"] == 3
    for split, key in (("val", "val/acc_best"), ("test", "test/acc")):
        indices = data.splits[split]
        with torch.no_grad():
            found = model(torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2) / 255).argmax(1).numpy()
        assert metrics[key] == pytest.approx(np.mean(found == data.labels[indices])), split
    with open(tmp_path / "metrics.csv", newline="") as file:
        assert [float(row["step"]) for row in csv.DictReader(file) if row.get("val/acc")] == [2]


@pytest.mark.parametrize(
    "settings, steps",
    [
        ({}, 4),
        ({"accumulate_grad_batches": 3}, 2),
        ({"check_val_every_n_epoch": 2, "accumulate_grad_batches": 3}, 4),
        ({"val_check_interval": 0.5}, 2),
        ({"val_check_interval": 2, "accumulate_grad_batches": 3}, 1),
        ({"val_check_interval": 6, "check_val_every_n_epoch": None}, 6),
    ],
)
def test_the_fewest_steps_with_a_validation_are_accepted(
    tmp_path, small_data, small_model, quiet_trainer, settings, steps
):
    data = small_data(batch_size=6)  # 4 batches
    for max_steps in (steps, steps - 1):
        trainer = quiet_trainer(max_epochs=3, max_steps=max_steps, default_root_dir=tmp_path, **settings)
        if max_steps == steps:
            assert train(data, small_model(), trainer)["val/acc_best"] is not None and trainer.global_step == steps
        else:
            with pytest.raises(ArgumentError, match=f"^max_steps={max_steps}: expected at least"):
                train(data, small_model(), trainer)


def test_a_checkpoint_of_weights_alone_is_not_resumed(tmp_path, small_data, small_model, quiet_trainer):
    best = ModelCheckpoint(tmp_path, "best", monitor="val/acc", mode="max", save_weights_only=True)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[best])
    data = small_data()
    train(data, small_model(), trainer)
    with pytest.raises(UserError, match=r"best\.ckpt: has weights alone; expected a checkpoint of the whole training"):
        trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path)
        train(data, small_model(), trainer, resume=tmp_path / "best.ckpt")


class SaveAtStep(pl.Callback):
    def __init__(self, folder, *steps):
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"step{trainer.global_step}.ckpt")


def test_only_checkpoints_of_the_end_of_an_epoch_are_resumed(tmp_path, small_data, small_model, quiet_trainer):
    """Three steps an epoch: one is saved before the last step of an epoch, one after it but before the validation."""
    data = small_data()

    def best(folder):
        return ModelCheckpoint(tmp_path / folder, "best", monitor="val/loss", mode="max")  # it is saved at a validation

    settings = dict(default_root_dir=tmp_path, enable_checkpointing=True)
    callbacks = [best("full"), SaveAtStep(tmp_path, 5, 6)]
    rows = [trained_rows(data, small_model(), quiet_trainer(max_epochs=3, callbacks=callbacks, **settings))]
    for name, epoch in (("step5", 2), ("step6", 2)):
        with pytest.raises(UserError, match=rf"{name}\.ckpt: is from within epoch {epoch}; expected one of the end"):
            trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path)
            train(data, small_model(), trainer, resume=tmp_path / f"{name}.ckpt")
    trainer = quiet_trainer(max_epochs=3, callbacks=[best("full")], **settings)
    rows += [trained_rows(data, small_model(), trainer, resume=next((tmp_path / "full").iterdir()))]
    assert rows[0] == rows[1] and len(rows[0]) == 3


def trained_rows(data, model, trainer, **settings):
    """The rows of the history without times."""
    train(data, model, trainer, **settings)
    return [{key: value for key, value in row.items() if key != "seconds"} for row in model.history.rows]


def test_a_best_checkpoint_whose_name_has_a_slash_is_found_again(tmp_path, small_data, small_model, quiet_trainer):
    """Lightning's names with a metric, such as `val/loss`, are in a folder of their own; the run's folder moves."""

    def trainer(folder, epochs):
        best = ModelCheckpoint(folder, "{epoch}-{val/loss:.3f}", monitor="val/loss", mode="max", save_last=True)
        callbacks, plugins = [best], [CheckpointFile()]
        settings = dict(enable_checkpointing=True, callbacks=callbacks, plugins=plugins)
        return quiet_trainer(max_epochs=epochs, default_root_dir=folder, **settings)

    data = small_data()
    train(data, small_model(), trainer(tmp_path / "run", 1))
    (tmp_path / "run").rename(tmp_path / "moved")
    metrics = train(data, small_model(), trainer(tmp_path / "moved", 2), resume=tmp_path / "moved" / "last.ckpt")
    assert metrics["epochs"] == 2


def test_a_precision_of_16_bits_does_not_stay_for_the_next_training(tmp_path, small_data, pretrained, quiet_trainer):
    model, data = pretrained(), small_data()
    for precision, dtype in (("bf16-true", torch.bfloat16), ("32-true", torch.float32)):
        train(data, model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path, precision=precision))
        assert {each.dtype for each in model.network.parameters()} == {dtype}
        assert model.trained_precision == precision


def test_results_of_an_interrupted_best_epoch_are_those_of_its_checkpoint(finished, small_model, quiet_trainer):
    """As on a GPU that does not repeat bits: the epoch of best.ckpt was repeated, and then was not the best."""
    folder, data, _ = finished
    checkpoints, last = folder / "checkpoints", torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(checkpoints / "best.ckpt", weights_only=True)
    best["epoch"] = 2
    for value in best["state_dict"].values():
        value.neg_()
    torch.save(best, checkpoints / "best.ckpt")
    for state in last["callbacks"].values():
        if state.get("monitor"):
            state["best_model_score"] = torch.tensor(0.99)
    torch.save(last, checkpoints / "last.ckpt")
    monitoring = ModelCheckpoint(
        checkpoints, "best", monitor="val/acc", mode="max", save_weights_only=True, enable_version_counter=False
    )
    trainer = quiet_trainer(max_epochs=3, default_root_dir=folder, enable_checkpointing=True, callbacks=[monitoring])
    metrics = train(data, small_model(), trainer, resume=checkpoints / "last.ckpt")
    assert metrics["val/acc_best"] == pytest.approx(accuracy(checkpoints / "best.ckpt", data, "val"))
    assert metrics["test/acc"] == pytest.approx(accuracy(checkpoints / "best.ckpt", data, "test"))
    assert metrics["epochs"] == 3


@pytest.mark.parametrize("weights_only", [True, False])
def test_reported_epoch_is_the_tested_epoch(tmp_path, small_data, small_model, quiet_trainer, weights_only):
    """The best by another metric, with a checkpoint callback before it that monitors nothing."""
    data = small_data()
    last = ModelCheckpoint(tmp_path, filename="last")
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", mode="max", save_weights_only=weights_only)
    trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[last, best])
    metrics = train(data, small_model(), trainer)
    saved_epoch = torch.load(best.best_model_path, weights_only=True)["epoch"] + 1
    assert saved_epoch == metrics["epoch_best"] < metrics["epochs"] == 3
    assert metrics["test/acc"] == pytest.approx(accuracy(best.best_model_path, data, "test"))
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best.best_model_path, data, "val"))


def loss(path, data, split):
    """Of a checkpoint on a split, in plain torch."""
    indices = data.splits[split]
    with torch.no_grad():
        probabilities = load(path)(torch.from_numpy(data.pixels[indices]).permute(0, 3, 1, 2) / 255).double()
    return -probabilities[torch.arange(len(indices)), torch.from_numpy(data.labels[indices])].log().mean().item()


def test_best_epoch_by_the_validation_loss(tmp_path, small_data, small_model, quiet_trainer):
    data, model = small_data(), small_model(learning_rate=1.0)
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", mode="min", save_weights_only=True)
    trainer = quiet_trainer(max_epochs=6, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[best])
    metrics = train(data, model, trainer, monitor="val/acc")  # the callback's monitor has precedence
    losses = [row["val/loss"] for row in model.history.rows]
    assert metrics["epoch_best"] == 1 + int(np.argmin(losses))
    assert (metrics["monitor"], metrics["monitor_mode"]) == ("val/loss", "min")
    assert metrics["monitor_best"] == min(losses) == pytest.approx(loss(best.best_model_path, data, "val"), rel=1e-5)
    assert metrics["val/acc_best"] == model.history.rows[metrics["epoch_best"] - 1]["val/acc"]
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best.best_model_path, data, "val"))
    assert metrics["test/loss"] == pytest.approx(loss(best.best_model_path, data, "test"), rel=1e-5)


def test_without_a_test(tmp_path, small_data, small_model, quiet_trainer, monkeypatch):
    data, model = small_data(), small_model()
    monkeypatch.setattr(data, "test_dataloader", None)  # fails if it is called
    trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path, limit_test_batches=0)
    metrics = train(data, model, trainer, test=False)
    assert {key: metrics[key] for key in metrics if "test" in key} == dict.fromkeys(
        ["test/acc", "test/acc_low", "test/acc_high", "test/loss", "images_test"]
    )
    assert set(model.predictions) == {"val"} and not any("test" in key for row in model.history.rows for key in row)
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["val/acc_best"] == model.history.rows[-1]["val/acc"]


def test_features_of_the_test_split_are_not_computed_without_a_test(
    tmp_path, small_data, pretrained, quiet_trainer, monkeypatch
):
    data, seen, forward = small_data(), set(), Frozen.forward

    def record(self, images):
        seen.update(image.numpy().tobytes() for image in images)
        return forward(self, images)

    monkeypatch.setattr(Frozen, "forward", record)
    train(data, pretrained(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path), test=False)
    pixels = torch.from_numpy(np.array(data.pixels)).permute(0, 3, 1, 2).float() / 255
    passed = {
        split: sum(pixels[index].numpy().tobytes() in seen for index in data.splits[split]) for split in data.splits
    }
    assert passed == {"train": 24, "val": 10, "test": 0}


def test_a_split_whose_only_image_is_unreadable(tmp_path, small_model, quiet_trainer, monkeypatch):
    """That is known only when the images have been decoded."""

    def divided(images):
        numbers = np.array([int(name.split("-")[1]) for name in images.names])
        chosen = {"train": numbers < 8, "val": numbers == 9, "test": numbers == 8}
        return {split: np.flatnonzero(is_chosen) for split, is_chosen in chosen.items()}

    def draw(label, description):
        if description.startswith("cartoon 9 "):
            raise ValueError("broken")
        return cartoon(label, description)

    monkeypatch.setattr("transfer_learning.data.sources.cartoons.cartoon", draw)
    data = ImageDataModule(Cartoons(3, 1, 1), divided, Preprocessing(32), batch_size=8, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="^there are no val images; expected at least one in each of train, val, test"):
        train(data, small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path))


def test_list_of_callbacks_is_not_changed(tmp_path, small_data, small_model, quiet_trainer):
    given = [LayerTable(), Pictures()]
    expected = list(given)
    for _ in range(2):
        trainer, model = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=given), small_model()
        of_trainer = trainer.callbacks
        train(small_data(), model, trainer)
        assert given == of_trainer == expected
        assert trainer.callbacks == [*expected, model.history]


def test_torchs_generator_is_left_as_it_was(tmp_path, small_data, small_model, quiet_trainer):
    """So networks that are built after a training differ."""
    data, model = small_data(), small_model(dropout=0.5)
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path)
    for work in (partial(find_learning_rate, steps=20), train):
        torch.manual_seed(7)
        work(data, model, trainer)
        found = torch.rand(3)
        torch.manual_seed(7)
        assert torch.equal(found, torch.rand(3))


def test_a_model_in_evaluation_mode_is_trained_in_training_mode(tmp_path, small_data, small_model, quiet_trainer):
    """As `load` gives it. Its losses are those of a new model, with the dropout that evaluation leaves out."""
    losses = []
    for evaluation in (False, True):
        model = small_model(dropout=0.5)
        model.train(not evaluation)
        train(small_data(), model, quiet_trainer(max_epochs=2, default_root_dir=tmp_path / str(evaluation)))
        losses.append([row["train/loss"] for row in model.history.rows])
    assert losses[0] == losses[1]


def test_best_epoch_without_a_validation(tmp_path, small_data, small_model, quiet_trainer):
    """A training metric is monitored, and the validations are fewer than the epochs."""
    best = ModelCheckpoint(
        tmp_path, "best", monitor="train/loss", mode="min", save_weights_only=True, save_on_train_epoch_end=True
    )
    settings = dict(max_epochs=2, check_val_every_n_epoch=2, default_root_dir=tmp_path, enable_checkpointing=True)
    model, data = small_model(learning_rate=0.001), small_data()
    metrics = train(data, model, quiet_trainer(callbacks=[best], **settings))
    assert metrics["epoch_best"] == 1 and metrics["monitor_best"] == model.history.rows[0]["train/loss"]
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best.best_model_path, data, "val"))


def test_epochs_without_validation(tmp_path, small_data, small_model, quiet_trainer):
    trainer, model = quiet_trainer(max_epochs=3, default_root_dir=tmp_path, check_val_every_n_epoch=2), small_model()
    metrics = train(small_data(), model, trainer)
    assert (metrics["epochs"], metrics["epoch_best"]) == (3, 3)  # whose weights are tested
    assert ["val/acc" in row for row in model.history.rows] == [False, True, False]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_any_precision(tmp_path, small_data, small_model, precision, quiet_trainer):
    trainer = quiet_trainer(
        max_epochs=1, default_root_dir=tmp_path, precision=precision, callbacks=[LayerTable(), Pictures()]
    )
    assert train(small_data(augment=True), small_model(), trainer)["precision"] == precision


def test_without_a_checkpoint_callback_the_last_epoch_is_tested(tmp_path, small_data, small_model, quiet_trainer):
    metrics = train(small_data(), small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    assert metrics["val/acc_best"] == metrics["val/acc_last"] and metrics["seconds_per_epoch"] is None


slow = partial(pytest.param, marks=pytest.mark.slow)
AUGMENT, VIEWS = {"augment": True}, {"augment": True, "views": 2}


@pytest.mark.parametrize(
    "settings, unfreeze",
    [
        ({}, None),
        ({}, "block3"),
        (AUGMENT, "block5"),
        (VIEWS, None),
        slow({}, "block5"),
        slow(AUGMENT, None),
        slow(AUGMENT, "block3"),
        slow(VIEWS, "block3"),
        slow(VIEWS, "block5"),
    ],
)
def test_stored_features_give_the_same_losses_as_end_to_end(
    tmp_path, small_data, pretrained, quiet_trainer, unfreeze, settings
):
    """Features stored by `train`, and a fit by Lightning alone, in which images pass the frozen part in every epoch."""
    stored = pretrained(unfreeze=unfreeze)
    metrics = train(small_data(**settings), stored, quiet_trainer(max_epochs=3, default_root_dir=tmp_path))
    model, data, end_to_end = pretrained(unfreeze=unfreeze), small_data(**settings), quiet_trainer(max_epochs=3)
    end_to_end.fit(model, datamodule=data)
    for ours, theirs in zip(stored.history.rows, model.history.rows, strict=True):
        for key in ("train/loss", "train/acc", "val/loss", "val/acc"):
            assert ours[key] == pytest.approx(theirs[key], rel=2e-4), key
    expected = end_to_end.test(model, datamodule=data, verbose=False)[0]["test/loss"]
    assert metrics["test/loss"] == pytest.approx(expected, rel=2e-4)


def test_frozen_part_computes_each_image_once_for_all_epochs_and_runs(
    tmp_path, small_data, pretrained, quiet_trainer, monkeypatch
):
    passed, forward = [], Frozen.forward  # the distinct images of each call: batches are padded

    def record(self, images):
        passed.append({image.numpy().tobytes() for image in images})
        return forward(self, images)

    def count():
        assert sum(map(len, passed)) == len(set().union(*passed))
        return sum(map(len, passed))

    monkeypatch.setattr(Frozen, "forward", record)
    for learning_rate in (0.1, 0.01):
        model = pretrained(dropout=learning_rate, optimizer=partial(torch.optim.SGD, lr=learning_rate))
        train(small_data(), model, quiet_trainer(max_epochs=4, default_root_dir=tmp_path))
        assert count() == 24 + 10 + 10
    train(small_data(augment=True, views=3), pretrained(), quiet_trainer(max_epochs=7, default_root_dir=tmp_path))
    assert count() == 24 + 10 + 10 + 3 * 24  # validation and test images were stored already


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_features_are_stored_in_the_precision_of_the_fit(tmp_path, small_data, pretrained, quiet_trainer, precision):
    data = small_data()
    for each in ("32-true", precision):
        trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, precision=each)
        metrics = train(data, pretrained(unfreeze="block5"), trainer)
    dtypes = {np.dtype(read_checked_json(path)["dtype"]) for path in (tmp_path / "cache").glob("features-*.json")}
    # int16 are the bits of bfloat16
    assert dtypes == {np.dtype("float32"), np.dtype("float64" if precision == "64-true" else "int16")}
    assert np.isfinite(metrics["test/loss"]) and metrics["seconds_features"] > 0 and not data.features


def test_head_learns_first_then_the_block_at_its_scale_of_the_rate(tmp_path, small_data, pretrained, quiet_trainer):
    """Both groups exist from the start; rates are the cosine's, written out, at each step."""
    settings = dict(unfreeze="block5", unfreeze_at_epoch=2, backbone_lr_scale=0.25)
    model = pretrained(Cosine(), optimizer=lambda groups: torch.optim.AdamW(groups, 0.01), **settings)
    backbone = model.network.trainable.backbone
    begin = [value.clone() for value in backbone.parameters()]
    rates, moved = [], []

    class Record(pl.Callback):
        def on_before_optimizer_step(self, trainer, model, optimizer):
            rates.append([group["lr"] for group in optimizer.param_groups])

        def on_train_epoch_end(self, trainer, model):
            moved.append([not torch.equal(a, b) for a, b in zip(begin, backbone.parameters())])

    train(small_data(), model, quiet_trainer(max_epochs=4, default_root_dir=tmp_path, callbacks=[Record()]))
    assert not any(moved[0] + moved[1])
    assert sum(moved[2]) == sum(moved[3]) == 5  # the five convolutions, none of the batch norms
    expected = [0.01 * Cosine()((step + 0.5) / 12) for step in range(12)]  # 24 images in batches of 8, 4 epochs
    assert [head for head, _ in rates] == pytest.approx(expected)
    assert [block for _, block in rates] == pytest.approx([0] * 6 + [0.25 * rate for rate in expected[6:]])
    assert [row["lr_backbone"] for row in model.history.rows] == [rates[step][1] for step in (2, 5, 8, 11)]


def test_resumed_fine_tuning_equals_an_uninterrupted_one(tmp_path, small_data, pretrained, quiet_trainer):
    """From a checkpoint of a validation before the block learned, with views, a schedule and dropout."""

    def fit(folder, resume=None):
        checkpoint = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        trainer = quiet_trainer(
            max_epochs=4, enable_checkpointing=True, callbacks=[checkpoint], check_val_every_n_epoch=2
        )
        model = pretrained(Cosine(), unfreeze="block5", unfreeze_at_epoch=2, backbone_lr_scale=0.5)
        data = small_data(augment=True, views=2)
        data.store_features(frozen_part(model, trainer))
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        return torch.cat([parameter.detach().flatten() for parameter in model.network.trainable.parameters()])

    straight = fit(tmp_path / "a")
    resumed = fit(tmp_path / "b", resume=tmp_path / "a" / "epoch=1.ckpt")
    assert torch.equal(straight, resumed)


@pytest.mark.parametrize(
    "batch, window, step, way",
    [(2, 1, 3, "a lower learning rate"), (2, 2, 2, "a lower learning rate"), (0, 2, 1, "the weights and the images")],
)
def test_loss_that_is_not_finite_names_the_step(
    small_data, small_model, quiet_trainer, batch, window, step, way, monkeypatch
):
    data, model = small_data(batch_size=5), small_model()
    losses, results = model.objective.losses, iter([torch.nan if n == batch else 1.0 for n in range(5)])
    monkeypatch.setattr(model.objective, "losses", lambda *inputs: losses(*inputs) * next(results))
    with pytest.raises(UserError, match=f"^epoch 1, step {step}: the loss is not finite.*{way}"):
        quiet_trainer(max_epochs=1, accumulate_grad_batches=window).fit(model, datamodule=data)


def test_validation_loss_that_is_not_finite_is_no_training_step(small_data, small_model, quiet_trainer, monkeypatch):
    """The validation within an epoch comes after two of its four batches."""
    data, model = small_data(batch_size=6), small_model()
    losses = model.objective.losses
    monkeypatch.setattr(
        model.objective, "losses", lambda *inputs: losses(*inputs) * (1 if model.training else torch.nan)
    )
    with pytest.raises(UserError, match="^epoch 1, in validation: the loss is not finite"):
        quiet_trainer(max_epochs=1, val_check_interval=2).fit(model, datamodule=data)


@pytest.mark.parametrize("settings", [{"balance": "sampler"}, {"balance": "weights"}])
def test_resumed_fit_of_balanced_classes_equals_an_uninterrupted_one(
    tmp_path, small_data, small_model, quiet_trainer, settings
):
    def fit(epochs, resume=None):
        data = small_data(augment=True, **settings)
        data.splits["train"] = data.splits["train"][data.labels[data.splits["train"]] <= np.arange(24) % 3 // 2]
        model = small_model(dropout=0.3, class_weights=data.class_weights)
        checkpoint = ModelCheckpoint(tmp_path, filename=f"{epochs}", enable_version_counter=False)
        trainer = quiet_trainer(max_epochs=epochs, enable_checkpointing=True, callbacks=[checkpoint])
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in model.history.rows]
        return rows, torch.cat([value.flatten() for value in model.state_dict().values()])

    rows, straight = fit(4)
    fit(2)
    resumed_rows, resumed = fit(4, resume=tmp_path / "2.ckpt")
    assert torch.equal(straight, resumed) and resumed_rows == rows


def test_a_calibrated_model_that_is_trained_again_has_no_temperature(tmp_path, small_data, small_model, quiet_trainer):
    model, data = small_model(), small_data()
    model.temperature = 4.0
    train(data, model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    with torch.no_grad():
        logits = model.logits(torch.rand(2, 3, 32, 32))
    torch.testing.assert_close(model.probabilities(logits)[:, 1:], logits.sigmoid())


def test_a_training_without_a_test_has_no_earlier_predictions(tmp_path, small_data, small_model, quiet_trainer):
    model, data = small_model(), small_data()
    for test in (True, False):
        trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path / str(test), callbacks=[Evaluation()])
        train(data, model, trainer, test=test)
        table = read_predictions(tmp_path / str(test) / "predictions.csv")
        assert set(table.splits) == ({"val", "test"} if test else {"val"})


def test_after_an_error_the_data_hand_out_images(tmp_path, small_data, pretrained, quiet_trainer):
    class Stop(pl.Callback):
        def on_train_start(self, *_):
            raise UserError("stop")

    data = small_data()
    with pytest.raises(UserError, match="stop"):
        train(data, pretrained(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[Stop()]))
    assert not next(iter(data.val_dataloader())).is_features


def test_images_of_the_validation_after_a_resume_without_a_validation(tmp_path, small_data, small_model, quiet_trainer):
    def run(epochs, resume=None):
        last = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        settings = dict(
            default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[last], check_val_every_n_epoch=2
        )
        model = small_model()
        train(small_data(), model, quiet_trainer(max_epochs=epochs, **settings), resume=resume)
        return model.history.batches

    assert run(2) == run(3, tmp_path / "last.ckpt")


def test_trainings_in_copies_of_the_process_are_refused(small_data, small_model, quiet_trainer):
    trainer = quiet_trainer(max_epochs=1, devices=2, strategy="ddp_spawn")
    with pytest.raises(ArgumentError, match="^strategy='ddp_spawn': it trains copies of the model"):
        train(small_data(), small_model(), trainer)


def test_class_weights_are_those_of_the_data_or_the_models_own(tmp_path, small_data, small_model, quiet_trainer):
    """Not those of the data of an earlier training."""
    model = small_model(class_weights=[2.0, 1.0])
    for balance in ("weights", "none"):
        data = small_data(balance=balance)
        train(data, model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
        expected = data.class_weights if balance == "weights" else [2.0, 1.0]
        assert model.class_weights.tolist() == pytest.approx(expected)


def test_fit_that_ends_by_steps(small_data, pretrained, quiet_trainer):
    for schedule in (None, Cosine()):
        trainer = quiet_trainer(max_epochs=-1, max_steps=7)
        trainer.fit(pretrained(schedule, unfreeze="block5", unfreeze_at_epoch=1), datamodule=small_data())
        assert trainer.global_step == 7


@pytest.mark.parametrize(
    "settings, schedule, epoch, message",
    [
        (
            {"max_epochs": -1, "max_time": "00:00:00:01"},
            Cosine(),
            0,
            "max_epochs=-1: a learning-rate schedule needs .* the end",
        ),
        ({"max_epochs": -1}, OneCycle(), 0, "max_epochs=-1: a learning-rate schedule needs .* the end"),
        ({"max_epochs": 2}, None, 2, "unfreeze_at_epoch=2: .*would never learn"),
        ({"max_epochs": 2}, Cosine(), 5, "unfreeze_at_epoch=5: .*would never learn"),
    ],
)
def test_schedules_that_do_not_fit_the_training(
    small_data, pretrained, quiet_trainer, settings, schedule, epoch, message
):
    model = pretrained(schedule, unfreeze="block5", unfreeze_at_epoch=epoch)
    with pytest.raises(ArgumentError, match=f"^{message}"):
        quiet_trainer(**settings).fit(model, datamodule=small_data())


@pytest.mark.parametrize("views", [0, 2])
def test_smaller_training_images_with_global_pooling(tmp_path, small_data, pretrained, quiet_trainer, views):
    """With views, the block that learns gets stored maps of two sizes."""
    data = small_data(augment=True, augmentation=RandomResizedCrop(size=64), views=views)
    model, sizes = pretrained(unfreeze="block5"), set()
    model.network.trainable.register_forward_pre_hook(lambda layer, inputs: sizes.add(inputs[0].shape[-1]))
    metrics = train(data, model, quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    assert sizes == {4, 2} and metrics["epochs"] == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_compiled_frozen_layers_give_the_same_losses_and_checkpoint_keys(
    tmp_path, small_data, pretrained, quiet_trainer
):
    losses, keys = [], []
    for compile in (False, True):
        torch.compiler.reset()
        data = small_data(augment=True, cache_dir=tmp_path / str(compile))
        model = pretrained(unfreeze=None)
        trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[LayerTable()])
        losses.append(train(data, model, trainer, compile=compile)["test/loss"])
        keys.append(list(model.state_dict()))
        assert bool(model.network.frozen._compiled_call_impl) == compile
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and keys[0] == keys[1]


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="torch 2.6 does not compile modules of torch.nn's own")
def test_every_job_of_a_process_is_compiled_whole(monkeypatch):
    """torch counts the graphs of all modules together: by default, the third job would not be compiled at all."""
    graphs, counts = [], []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend=backend))
    for job in range(4):
        frozen, trainable = (
            torch.nn.Linear(3 + job, 4),
            torch.nn.Sequential(torch.nn.Linear(3 + job, 4), torch.nn.ReLU()),
        )
        compile_network(SimpleNamespace(frozen=frozen, trainable=trainable), torch.device("cuda"))
        for part in (frozen, trainable):
            for dimensions in range(1, 7):
                part(torch.rand(*[2] * dimensions, 3 + job))
        counts.append(len(graphs))
        graphs.clear()
    assert counts == [12] * 4  # more than torch's default limit, 8


def test_a_training_without_compilation_undoes_that_of_an_earlier_one(pretrained):
    network = pretrained().network
    compile_network(network, torch.device("cuda"))
    assert network.frozen._compiled_call_impl and network.trainable._compiled_call_impl
    undo_compilation(network)
    assert network.frozen._compiled_call_impl is network.trainable._compiled_call_impl is None


def test_a_training_on_the_cpu_asks_nothing_of_cuda(tmp_path, small_data, pretrained, quiet_trainer, monkeypatch):
    """As on a machine with a GPU: each of these functions would open a context on it."""

    def fail(*arguments, **settings):
        raise AssertionError("CUDA was used")

    names = ("_lazy_init", "current_device", "mem_get_info", "get_device_name", "get_device_capability", "synchronize")
    for name in (*names, "get_device_properties", "is_bf16_supported", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, fail)
    monkeypatch.setattr(torch.Tensor, "pin_memory", fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert default_precision("cpu") in ("32-true", "bf16-mixed")
    best = ModelCheckpoint(tmp_path, "best", monitor="val/acc", mode="max")
    trainer = quiet_trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[best], enable_checkpointing=True)
    data, pinned = small_data(augment=True), []
    make = type(data)._loader
    monkeypatch.setattr(
        type(data), "_loader", lambda *a, **s: [made := make(*a, **s), pinned.append(made.pin_memory)][0]
    )
    train(data, pretrained(), trainer)
    assert pinned and not any(pinned)
