import logging
import re
from copy import deepcopy

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger
from torchmetrics.classification import MulticlassF1Score

from transfer_learning.callbacks.history import parameter_groups
from transfer_learning.models.pretrained import Pretrained


class Recorder(Logger):
    """Keeps metrics in memory."""

    name, version = "recorder", 0

    def __init__(self):
        self.metrics = []

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))

    def log_hyperparams(self, *arguments, **settings):
        pass


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_rows_are_the_logged_metrics(small_data, small_model, quiet_trainer):
    recorder, model = Recorder(), small_model(metrics={"f1": MulticlassF1Score})
    quiet_trainer(max_epochs=3, logger=recorder).fit(model, datamodule=small_data())
    assert [row["epoch"] for row in model.history.rows] == [1, 2, 3]
    assert model.history.batches == (3, 2) and model.history.resumed == 0
    names = [f"{split}/{name}" for split in ("train", "val") for name in ("loss", "acc", "f1")]
    for row in model.history.rows:
        assert set(row) == {"epoch", "seconds", "lr", *names} and row["seconds"] > 0
        logged = {
            key: value for step, values in recorder.metrics if step == row["epoch"] for key, value in values.items()
        }
        assert {key: row[key] for key in names} == pytest.approx({key: logged[key] for key in names})


def test_what_a_callback_logs_for_each_epoch_is_in_the_rows(small_data, small_model, quiet_trainer):
    class Norm(Callback):
        def on_validation_batch_end(self, trainer, model, outputs, batch, *_):
            norm = batch.inputs.norm()
            model.log("val/norm", norm, on_step=False, on_epoch=True, batch_size=len(batch.targets))

    model, data = small_model(), small_data()
    quiet_trainer(max_epochs=2, callbacks=[Norm()]).fit(model, datamodule=data)
    sizes, norms = zip(
        *((len(b.targets), data.on_after_batch_transfer(b).inputs.norm()) for b in data.val_dataloader())
    )
    expected = sum(size * norm for size, norm in zip(sizes, norms)) / sum(sizes)
    assert [row["val/norm"] for row in model.history.rows] == pytest.approx([float(expected)] * 2)


def test_epochs_are_printed(small_data, small_model, quiet_trainer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "propagate", True)
    model = small_model(metrics={"f1": MulticlassF1Score})
    with caplog.at_level(logging.INFO):
        quiet_trainer(max_epochs=2, check_val_every_n_epoch=2).fit(model, datamodule=small_data())
    first, second = dict.fromkeys(each for each in caplog.messages if each.startswith("epoch "))
    row = model.history.rows[1]
    assert first.startswith("epoch   1/2  loss ") and "validation" not in first
    shown = [
        f"loss {row['train/loss']:.4f}  accuracy {row['train/acc']:.4f}  f1 {row['train/f1']:.4f}",
        f"validation loss {row['val/loss']:.4f}  validation accuracy {row['val/acc']:.4f}",
        f"validation f1 {row['val/f1']:.4f}  {row['seconds']:.1f} s",
    ]
    assert second == f"epoch   2/2  {'  '.join(shown)}"


def test_each_parameter_group_is_named_with_its_rate_and_first_epoch(classifier):
    network = Pretrained(2, 32, "resnet18", None, unfreeze="block5", unfreeze_at_epoch=2, backbone_lr_scale=0.1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.02)
    head, block = parameter_groups(network, optimizer)
    assert re.fullmatch(r"trains head: [\d,]+ parameters, learning rate 0\.02", head)
    # ResNet-18's last layer: 4 convolutions of 3 x 3 and one of 1 x 1, 5 batch norms, whose parameters are frozen
    convolutions = 512 * (256 + 3 * 512) * 9 + 512 * 256
    assert block == f"trains backbone: {convolutions:,} parameters, learning rate 0.002 from epoch 3 on"


@pytest.mark.parametrize(
    ("limits", "epochs", "reason"),
    [
        ({"patience": 2}, 3, "has not improved on {best:.4f} in 2 validations"),
        ({"patience": 2, "stopping_threshold": 1e3}, 1, "has reached a threshold"),
    ],
)
def test_why_a_fit_ended_early_is_said(
    limits, epochs, reason, small_data, small_model, quiet_trainer, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("pytorch_lightning"), "propagate", True)
    stop = EarlyStopping("val/loss", **limits)
    with caplog.at_level(logging.INFO):
        trainer = quiet_trainer(max_epochs=30, callbacks=[stop])
        trainer.fit(small_model(learning_rate=0.0), datamodule=small_data())
    assert trainer.current_epoch == epochs
    (said,) = dict.fromkeys(each for each in caplog.messages if each.startswith("stopped early"))
    assert said == f"stopped early: val/loss {reason.format(best=stop.best_score.item())}"


def test_resumed_fit_has_the_earlier_epochs_and_logs_them_again(tmp_path, small_data, small_model, quiet_trainer):
    def fit(epochs, resume=None):
        recorder, model, data = Recorder(), small_model(dropout=0.5), small_data(augment=True)
        last = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
        trainer = quiet_trainer(max_epochs=epochs, logger=recorder, enable_checkpointing=True, callbacks=[last])
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        return model.history, recorder.metrics

    straight, _ = fit(4)
    fit(2)
    resumed, logged = fit(4, resume=tmp_path / "last.ckpt")
    assert without_seconds(resumed.rows) == without_seconds(straight.rows)
    assert (resumed.resumed, straight.resumed) == (2, 0)
    for row in without_seconds(resumed.rows):
        values = {key: value for step, values in logged if step == row["epoch"] for key, value in values.items()}
        assert values["val/acc"] == pytest.approx(row["val/acc"])
        assert values["train/loss"] == pytest.approx(row["train/loss"]) and values["lr"] == pytest.approx(row["lr"])


def test_resumed_fit_that_ends_by_steps_equals_an_uninterrupted_one(tmp_path, small_data, small_model, quiet_trainer):
    data = small_data()

    def fit(resume=None, **limits):
        every = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, enable_version_counter=False)
        trainer, model = quiet_trainer(enable_checkpointing=True, callbacks=[every], **limits), small_model(dropout=0.5)
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
        assert trainer.max_steps == 8
        return without_seconds(model.history.rows), torch.cat([each.flatten() for each in model.state_dict().values()])

    for epochs in (-1, 4):  # of three steps; the last one has two
        rows, straight = fit(max_epochs=epochs, max_steps=8)
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        for done in (1, 3):
            resumed_rows, resumed = fit(tmp_path / f"epoch={done - 1}.ckpt", max_epochs=epochs, max_steps=8)
            assert resumed_rows == rows and torch.equal(resumed, straight)
    rows, _ = fit(max_epochs=1, max_steps=8)
    assert fit(tmp_path / "epoch=0.ckpt", max_epochs=1, max_steps=8)[0] == rows  # nothing is left to train


def test_early_stopping_stays_in_force_after_a_resume(tmp_path, small_data, small_model, quiet_trainer):
    def fit(resume=None):
        model = small_model(learning_rate=0.0)  # nothing improves
        last = ModelCheckpoint(tmp_path, "last", enable_version_counter=False, save_on_train_epoch_end=True)
        callbacks = [EarlyStopping("val/loss", patience=1), last]
        trainer = quiet_trainer(max_epochs=5, enable_checkpointing=True, callbacks=callbacks)
        trainer.fit(model, datamodule=small_data(), ckpt_path=resume, weights_only=True)
        return [row["epoch"] for row in model.history.rows]

    assert fit() == [1, 2]
    assert fit(resume=tmp_path / "last.ckpt") == [1, 2]


@pytest.mark.parametrize("callbacks", [[], [EarlyStopping("val/loss", patience=5)]])
def test_a_fit_that_something_else_stopped_goes_on(tmp_path, small_data, small_model, quiet_trainer, callbacks):
    """As after Lightning's `max_time`."""

    class Stop(Callback):
        def on_train_epoch_end(self, trainer, model):
            trainer.should_stop = True

    def checkpoint():
        return ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False)

    data, settings = small_data(), dict(max_epochs=3, enable_checkpointing=True)
    quiet_trainer(callbacks=[Stop(), checkpoint(), *callbacks], **settings).fit(small_model(), datamodule=data)
    trainer = quiet_trainer(callbacks=[checkpoint(), *deepcopy(callbacks)], **settings)
    model = small_model()
    trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [row["epoch"] for row in model.history.rows] == [1, 2, 3]


def test_second_fit_of_a_model_begins_a_new_history(tmp_path, small_data, small_model, quiet_trainer):
    model, data = small_model(), small_data()
    for _ in range(2):
        logger = CSVLogger(tmp_path)
        quiet_trainer(max_epochs=2, logger=logger).fit(model, datamodule=data)
        assert [row["epoch"] for row in model.history.rows] == [1, 2]
