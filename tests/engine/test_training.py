import json
import os
import shutil
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from transfer_learning import load
from transfer_learning.callbacks.history import History
from transfer_learning.callbacks.layer_table import LayerTable
from transfer_learning.callbacks.pictures import Pictures
from transfer_learning.errors import UserError
from transfer_learning.models.classifier import Classifier
from transfer_learning.models.network import Frozen
from transfer_learning.models.pretrained import Pretrained
from transfer_learning.models.schedule import cosine
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


def test_what_is_reported_of_a_best_epoch_that_was_cut_off_and_repeated_is_its_own(
    finished, small_model, quiet_trainer
):
    """As on a GPU that repeats no bits: best.ckpt is of an epoch that, repeated, was not the best."""
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
def test_the_epoch_reported_is_the_epoch_tested(tmp_path, small_data, small_model, quiet_trainer, weights_only):
    """The best by another measure, named after a checkpoint that measures nothing; to read it is not to go back to it."""
    data = small_data()
    last = ModelCheckpoint(tmp_path, filename="last")
    best = ModelCheckpoint(tmp_path, filename="best", monitor="val/loss", mode="max", save_weights_only=weights_only)
    metrics = train(
        data,
        small_model(),
        quiet_trainer(max_epochs=3, default_root_dir=tmp_path, enable_checkpointing=True, callbacks=[last, best]),
    )
    assert (
        torch.load(best.best_model_path, weights_only=True)["epoch"] + 1
        == metrics["epoch_best"]
        < metrics["epochs"]
        == 3
    )
    assert metrics["test/acc"] == pytest.approx(accuracy(best.best_model_path, data, "test"))
    assert metrics["val/acc_best"] == pytest.approx(accuracy(best.best_model_path, data, "val"))


def test_epochs_without_validation(tmp_path, small_data, small_model, quiet_trainer):
    trainer = quiet_trainer(max_epochs=3, default_root_dir=tmp_path, check_val_every_n_epoch=2)
    metrics = train(small_data(), small_model(), trainer)
    assert (metrics["epochs"], metrics["epoch_best"]) == (3, 2)
    rows = next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows
    assert ["val/acc" in row for row in rows] == [False, True, False]


@pytest.mark.parametrize(
    "settings", [{"limit_train_batches": 0}, {"limit_val_batches": 0}, {"limit_test_batches": 0}, {"max_epochs": 0}]
)
def test_nothing_to_validate_or_test_is_said_in_one_line(tmp_path, small_data, small_model, settings, quiet_trainer):
    with pytest.raises(UserError, match="expected"):
        train(small_data(), small_model(), quiet_trainer(**{"max_epochs": 3, "default_root_dir": tmp_path} | settings))


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_any_precision(tmp_path, small_data, small_model, precision, quiet_trainer):
    trainer = quiet_trainer(
        max_epochs=1, default_root_dir=tmp_path, precision=precision, callbacks=[LayerTable(), Pictures()]
    )
    assert train(small_data(augment=True), small_model(), trainer)["precision"] == precision


def test_without_a_checkpoint_callback_the_last_epoch_is_tested(tmp_path, small_data, small_model, quiet_trainer):
    metrics = train(small_data(), small_model(), quiet_trainer(max_epochs=1, default_root_dir=tmp_path))
    assert metrics["val/acc_best"] == metrics["val/acc_last"] and metrics["seconds_per_epoch"] is None


@pytest.fixture
def pretrained():
    """pretrained(**settings): a small ResNet with random weights, always the same, and dropout; an optimiser with momentum."""

    def make(schedule=None, optimizer=lambda groups: torch.optim.SGD(groups, 0.01, momentum=0.9), **settings):
        torch.manual_seed(0)
        network = Pretrained(
            2, 32, **{"backbone": "resnet18", "weights": None, "layer_norm": True, "dropout": 0.3} | settings
        )
        return Classifier(network, ("cat", "dog"), 32, optimizer, schedule)

    return make


def history(trainer):
    return next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows


@pytest.mark.parametrize("unfreeze", [None, "block5", "block3"])
@pytest.mark.parametrize("settings", [{}, {"augment": True}, {"augment": True, "views": 2}])
def test_stored_outputs_and_end_to_end_give_the_same_losses(
    tmp_path, small_data, pretrained, quiet_trainer, unfreeze, settings
):
    """Stored by `train`, and by Lightning alone, which knows nothing of storing: every image passes the frozen part every epoch."""
    stored = quiet_trainer(max_epochs=3, default_root_dir=tmp_path)
    metrics = train(small_data(**settings), pretrained(unfreeze=unfreeze), stored)
    end_to_end = quiet_trainer(max_epochs=3, callbacks=[History()])
    model, data = pretrained(unfreeze=unfreeze), small_data(**settings)
    end_to_end.fit(model, datamodule=data)
    for ours, theirs in zip(history(stored), history(end_to_end), strict=True):
        for key in ("train/loss", "train/acc", "val/loss", "val/acc"):
            assert ours[key] == pytest.approx(theirs[key], rel=2e-4), key
    assert metrics["test/loss"] == pytest.approx(
        end_to_end.test(model, datamodule=data, verbose=False)[0]["test/loss"], rel=2e-4
    )


def test_convolutions_run_once_over_each_image_whatever_the_epochs_and_runs(
    tmp_path, small_data, pretrained, quiet_trainer, monkeypatch
):
    passed = []
    forward = Frozen.forward
    monkeypatch.setattr(Frozen, "forward", lambda self, images: passed.append(len(images)) or forward(self, images))
    for learning_rate in (0.1, 0.01):
        trainer = quiet_trainer(max_epochs=4, default_root_dir=tmp_path)
        train(
            small_data(),
            pretrained(dropout=learning_rate, optimizer=partial(torch.optim.SGD, lr=learning_rate)),
            trainer,
        )
        assert sum(passed) == 24 + 10 + 10
    train(small_data(augment=True, views=3), pretrained(), quiet_trainer(max_epochs=7, default_root_dir=tmp_path))
    assert sum(passed) == 24 + 10 + 10 + 3 * 24  # validation and test images were there


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_outputs_are_stored_in_the_precision_of_the_fit(tmp_path, small_data, pretrained, quiet_trainer, precision):
    data = small_data()
    for each in ("32-true", precision):
        metrics = train(
            data, pretrained(unfreeze="block5"), quiet_trainer(max_epochs=1, default_root_dir=tmp_path, precision=each)
        )
    dtypes = {np.load(path).dtype for path in (tmp_path / "cache").glob("outputs-train*.npy")}
    assert dtypes == {
        np.dtype("float32"),
        np.dtype("float64" if precision == "64-true" else "int16"),
    }  # bfloat16's bits
    assert np.isfinite(metrics["test/loss"]) and metrics["seconds_encoding"] > 0 and not data.encoded


def test_the_head_learns_first_then_the_block_at_its_share_of_the_rate(tmp_path, small_data, pretrained, quiet_trainer):
    """Both groups exist from the start; rates are the cosine's, written out, at each step."""
    model = pretrained(
        cosine, unfreeze="block5", head_epochs=2, lr_share=0.25, optimizer=lambda g: torch.optim.AdamW(g, 0.01)
    )
    begin = [value.clone() for value in model.network.trainable.pretrained.parameters()]
    seen = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, model, optimizer):
            seen.append([group["lr"] for group in optimizer.param_groups])

        def on_train_epoch_end(self, trainer, model):
            parameters = model.network.trainable.pretrained.parameters()
            moved.append([not torch.equal(a, b) for a, b in zip(begin, parameters)])

    moved = []
    train(small_data(), model, quiet_trainer(max_epochs=4, default_root_dir=tmp_path, callbacks=[Watch()]))
    assert (
        not any(moved[0] + moved[1]) and sum(moved[2]) == sum(moved[3]) == 5
    )  # the five convolutions, none of the batch norms
    expected = [0.01 * cosine((step + 0.5) / 12) for step in range(12)]  # 24 images in batches of 8, 4 epochs
    assert [head for head, _ in seen] == pytest.approx(expected)
    assert [block for _, block in seen] == pytest.approx([0] * 6 + [0.25 * rate for rate in expected[6:]])


def test_a_resumed_fine_tuning_goes_on_as_if_it_had_not_stopped(tmp_path, small_data, pretrained, quiet_trainer):
    """From a checkpoint of a time when only the head had learnt, saved at a validation, with views, a schedule and dropout."""

    def fit(folder, resume=None):
        checkpoint = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        trainer = quiet_trainer(
            max_epochs=4, enable_checkpointing=True, callbacks=[checkpoint], check_val_every_n_epoch=2
        )
        model, data = (
            pretrained(cosine, unfreeze="block5", head_epochs=2, lr_share=0.5),
            small_data(augment=True, views=2),
        )
        frozen = model.network.frozen
        data.encode_once(lambda batch: frozen(data.on_after_batch_transfer(batch).x), {"frozen": frozen.key})
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        return torch.cat([parameter.detach().flatten() for parameter in model.network.trainable.parameters()])

    straight = fit(tmp_path / "a")
    resumed = fit(tmp_path / "b", resume=tmp_path / "a" / "epoch=1.ckpt")
    assert torch.equal(straight, resumed)


def test_a_fit_that_ends_by_steps(small_data, pretrained, quiet_trainer):
    for schedule in (None, cosine):
        trainer = quiet_trainer(max_epochs=-1, max_steps=7)
        trainer.fit(pretrained(schedule, unfreeze="block5", head_epochs=1), datamodule=small_data())
        assert trainer.global_step == 7


@pytest.mark.parametrize(
    "settings, schedule, head_epochs, message",
    [
        ({"max_epochs": -1, "max_time": "00:00:00:01"}, cosine, 0, "scheduler: .*trainer.max_epochs or max_steps"),
        ({"max_epochs": 2}, None, 2, "model.head_epochs=2: .*would never learn"),
        ({"max_epochs": 2}, lambda progress: cosine(progress, 1.5), 0, "scheduler.warmup=1.5"),
    ],
)
def test_schedules_that_cannot_be(small_data, pretrained, quiet_trainer, settings, schedule, head_epochs, message):
    with pytest.raises(UserError, match=message):
        quiet_trainer(**settings).fit(
            pretrained(schedule, unfreeze="block5", head_epochs=head_epochs), datamodule=small_data()
        )


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
